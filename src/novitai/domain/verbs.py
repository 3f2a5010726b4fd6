# SPDX-License-Identifier: Apache-2.0
"""Decide whether an instance accepts a verb now. Pure; the same for every API and command."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.status import is_gone


class Verdict(Enum):
    """The decision on a request for a verb."""

    GO = auto()
    """Accepted; it replaces the unfinished operation, if any."""
    ALREADY = auto()
    """The instance is already in the requested state."""
    UNDER_WAY = auto()
    """The same verb is running."""
    BUSY = auto()
    """Another operation is running."""
    RELEASED = auto()
    """The record was released, so no verb acts on its instance any more."""
    NOT_NOW = auto()
    """The instance's state does not allow the verb."""


_ALREADY: Final[Mapping[OperationKind, InstanceStatus]] = {
    OperationKind.START: InstanceStatus.RUNNING,
    OperationKind.STOP: InstanceStatus.STOPPED,
    OperationKind.DELETE: InstanceStatus.TERMINATED,
}

_FROM: Final[Mapping[OperationKind, frozenset[InstanceStatus]]] = {
    OperationKind.START: frozenset({InstanceStatus.STOPPED, InstanceStatus.FAILED}),
    OperationKind.STOP: frozenset({InstanceStatus.RUNNING}),
    OperationKind.RESTART: frozenset({InstanceStatus.RUNNING}),
}


def judge(kind: OperationKind, instance: Instance, running: Operation | None) -> Verdict:
    """Decide on a request for a verb.

    A delete replaces any other operation and is accepted in any state that has not ended. A record
    that ended by absence may still have a living instance, so it can be deleted as well. The other
    verbs need an upstream instance that is not gone.
    """
    if instance.status is InstanceStatus.RELEASED:
        return Verdict.RELEASED
    again = kind is OperationKind.DELETE and instance.ended_by_absence
    idle = running is None or running.kind.gives_way
    if instance.status is _ALREADY.get(kind) and idle and not again:
        return Verdict.ALREADY
    if running is not None and running.kind is kind:
        return Verdict.UNDER_WAY
    if kind is OperationKind.DELETE:
        ended = instance.status is InstanceStatus.TERMINATED and not again
        return Verdict.ALREADY if ended else Verdict.GO
    if running is not None and not running.kind.gives_way:
        return Verdict.BUSY
    if instance.status not in _FROM[kind]:
        return Verdict.NOT_NOW
    if instance.upstream_id is None or is_gone(instance):
        return Verdict.NOT_NOW
    return Verdict.GO

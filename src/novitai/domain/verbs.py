# SPDX-License-Identifier: Apache-2.0
"""Whether a verb may be asked of an instance now. Pure; the same for every way of asking."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.status import is_gone


class Verdict(Enum):
    """What becomes of a request for a verb."""

    GO = auto()
    """It is accepted; whatever runs and gives way is replaced."""
    ALREADY = auto()
    """What is asked for is so already."""
    UNDER_WAY = auto()
    """The same verb is running."""
    BUSY = auto()
    """Another operation is running."""
    RELEASED = auto()
    """The record was released: nothing is asked of its instance any more."""
    NOT_NOW = auto()
    """The state does not allow it."""


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
    """Judge a request for a verb.

    Delete always wins: over whatever runs, in whatever state. A record that was ended by absence
    alone may yet have an instance that lives, so it can be deleted. A start needs something to
    start.
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

# SPDX-License-Identifier: Apache-2.0
"""Derive an instance's status from its record, its operation and its observed state. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

from novitai.domain.instance import Instance, InstanceStatus, may_follow
from novitai.domain.operation import OperationKind


class Observation(Enum):
    """Novita's statuses, grouped by their meaning to novitai (upstream.md §7)."""

    WAITING = auto()
    PULLING = auto()
    STARTING = auto()
    RUNNING = auto()
    STOPPING = auto()
    EXITED = auto()
    MIGRATING = auto()
    REMOVING = auto()
    REMOVED = auto()
    UNKNOWN = auto()


_WORDS: Final[Mapping[str, Observation]] = {
    "pending": Observation.WAITING,
    "toCreate": Observation.WAITING,
    "creating": Observation.WAITING,
    "pulling": Observation.PULLING,
    "toStart": Observation.STARTING,
    "starting": Observation.STARTING,
    "toRestart": Observation.STARTING,
    "restarting": Observation.STARTING,
    "toReset": Observation.STARTING,
    "resetting": Observation.STARTING,
    "running": Observation.RUNNING,
    "toStop": Observation.STOPPING,
    "stopping": Observation.STOPPING,
    "exited": Observation.EXITED,
    "migrating": Observation.MIGRATING,
    "toRemove": Observation.REMOVING,
    "removing": Observation.REMOVING,
    "removed": Observation.REMOVED,
}


def read_word(word: str | None) -> Observation:
    """Return the group of a Novita status; `freezing` and undocumented ones are UNKNOWN."""
    return _WORDS.get(word or "", Observation.UNKNOWN)


def is_gone(instance: Instance) -> bool:
    """Return whether nothing is left at Novita: proven gone, or listed as removed."""
    return instance.observed.gone or read_word(instance.observed.status) is Observation.REMOVED


_OBSERVED: Final[Mapping[Observation, InstanceStatus]] = {
    Observation.WAITING: InstanceStatus.STARTING,
    Observation.PULLING: InstanceStatus.STARTING,
    Observation.STARTING: InstanceStatus.STARTING,
    Observation.STOPPING: InstanceStatus.STOPPING,
    Observation.EXITED: InstanceStatus.STOPPED,
    Observation.MIGRATING: InstanceStatus.MIGRATING,
    Observation.REMOVING: InstanceStatus.TERMINATING,
    Observation.REMOVED: InstanceStatus.TERMINATED,
}


def derive(instance: Instance, running: OperationKind | None) -> InstanceStatus:
    """Derive the current status of an instance.

    Args:
        instance: The record, with its previous status and its last observed state.
        running: The kind of its unfinished operation. It takes precedence over the observed state.

    Returns:
        The new status, or the previous one if the transition is not allowed.
    """
    wanted = _wanted(instance, running)
    return wanted if may_follow(instance.status, wanted) else instance.status


def _wanted(instance: Instance, running: OperationKind | None) -> InstanceStatus:
    if instance.released_at is not None:
        return InstanceStatus.RELEASED
    if instance.terminated_at is not None:
        return InstanceStatus.TERMINATED
    if running is OperationKind.DELETE:
        return InstanceStatus.TERMINATING
    if running in {OperationKind.START, OperationKind.RESTART}:
        return InstanceStatus.STARTING
    if instance.failed:
        return InstanceStatus.FAILED
    if running is OperationKind.STOP:
        return InstanceStatus.STOPPING
    if running is OperationKind.CREATE:
        return _while_creating(instance)
    return _from_observation(instance)


def _while_creating(instance: Instance) -> InstanceStatus:
    seen = read_word(instance.observed.status)
    if instance.upstream_id is None or seen in {Observation.WAITING, Observation.UNKNOWN}:
        return InstanceStatus.CREATING
    return InstanceStatus.STARTING


def _from_observation(instance: Instance) -> InstanceStatus:
    if instance.observed.gone:
        return InstanceStatus.TERMINATED
    seen = read_word(instance.observed.status)
    if seen is Observation.RUNNING:
        return InstanceStatus.STARTING if instance.ready_at is None else InstanceStatus.RUNNING
    return _OBSERVED.get(seen, instance.status)

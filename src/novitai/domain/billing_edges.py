# SPDX-License-Identifier: Apache-2.0
"""When billing begins and ends between two observations of an instance. Pure.

An observation shows a status at a time, so changes since the previous one are known only within
bounds. Novita's own times narrow them where they are sent and fit in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from novitai.domain.billing import (
    DAY_MS,
    IN_REMOVAL,
    REMOVED,
    STOPPED,
    Billing,
    GpuState,
    gpu_billing,
    may_have_run,
)

CLOCKS_AGREE: Final = 1_000
"""Milliseconds by which Novita's clock may seem to differ from ours without being corrected.

Its `Date` has whole seconds, so a smaller difference cannot be measured."""
OFFSET_ERROR: Final = 500
"""The error of a measured difference, in milliseconds."""
_SECOND: Final = 1_000


@dataclass(frozen=True, slots=True)
class Look:
    """When upstream was asked, in Unix milliseconds.

    Attributes:
        began_at: Before the first request; what was shown is no older.
        read_at: After the last response; what was shown is no newer.
        clock_offset: Milliseconds that upstream's clock is ahead; None if unknown.
    """

    began_at: int
    read_at: int
    clock_offset: int | None = None

    def window(self, at: int) -> Bounds:
        """Return the bounds, on our clock, of a moment that upstream gave in whole seconds."""
        offset, error = self.clock_offset or 0, OFFSET_ERROR
        if abs(offset) <= CLOCKS_AGREE:
            offset, error = 0, 0
        return Bounds(at - offset - error, at - offset + _SECOND + error)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Something happened after `after` and not later than `by`, in Unix milliseconds.

    Without `by` it is not known whether it happened at all.
    """

    after: int
    by: int | None

    def within(self, since: int, until: int) -> Bounds | None:
        """Return the part that lies between two times; None if there is none."""
        if self.by is None or self.by <= since or self.after >= until:
            return None
        return Bounds(max(self.after, since), min(self.by, until))

    def later(self, moved: int) -> Bounds:
        """Return the bounds of what happens so many milliseconds later."""
        return Bounds(self.after + moved, None if self.by is None else self.by + moved)


@dataclass(frozen=True, slots=True)
class Edge:
    """The GPUs began to be billed (`on`), or ended to be."""

    on: bool
    when: Bounds


@dataclass(frozen=True, slots=True)
class BillingSight:
    """What one look showed of an instance, as far as it is billed.

    Attributes:
        word: Novita's status.
        hourly_price: Of all GPUs in 1/100000 USD per hour; None if unknown.
        rootfs_gb: The size of its disk.
        stopped_price: Of the disk of a stopped instance in 1/100000 USD per GB-day, if sent.
        started_at: Novita's time of the last start, in Unix milliseconds by its clock; 0 if it was
            never started, None if Novita does not tell.
        stopped_at: As `started_at`, of the last stop.
        created_at: Novita's time of the purchase; None if it does not tell.
        purged_at: Novita's time at which it purges the disk of the stopped instance, if told.
        keep_days: For how many days it keeps the disk of a stopped instance, if told.
    """

    word: str
    hourly_price: int | None
    rootfs_gb: int
    stopped_price: int | None = None
    started_at: int | None = None
    stopped_at: int | None = None
    created_at: int | None = None
    purged_at: int | None = None
    keep_days: int | None = None


@dataclass(frozen=True, slots=True)
class Before:
    """The state of the GPUs before an observation.

    Attributes:
        state: Whether they were billed at `known_at`.
        known_at: The last time at which that was known, in Unix milliseconds.
        word: Novita's status at that time; empty if it was not listed yet.
        started_at: The time of the last start that Novita had told by then; None if it had not.
        stopped_at: As `started_at`, of the last stop.
    """

    state: GpuState
    known_at: int
    word: str
    started_at: int | None = None
    stopped_at: int | None = None


def marks(before: Before, sight: BillingSight, look: Look) -> list[Edge]:
    """Return the starts and stops that Novita's times place between two observations, in order."""
    found: list[Edge] = []
    told = (
        (True, before.started_at, sight.started_at),
        (False, before.stopped_at, sight.stopped_at),
    )
    for on, old, new in told:
        if new and new != old:
            window = look.window(new).within(before.known_at, look.read_at)
            if window is not None:
                found.append(Edge(on, window))
    starts_first = _starts_first(before, sight)
    return sorted(found, key=lambda edge: (edge.when.after, edge.on is not starts_first))


def _starts_first(before: Before, sight: BillingSight) -> bool:
    """Whether of a start and a stop in the same second the start comes first.

    The last of them is the one that the status shows; otherwise the one that changes the state
    comes first.
    """
    if sight.word == STOPPED:
        return True
    if gpu_billing(sight.word) is Billing.BILLED:
        return False
    return before.state is GpuState.OFF


def gpu_edges(before: Before, sight: BillingSight, look: Look) -> list[Edge]:
    """Return the begins and ends of GPU billing since the observation before, in order."""
    edges: list[Edge] = []
    state, since, until = before.state, before.known_at, look.read_at
    for mark in marks(before, sight, look):
        if mark.on and state is GpuState.ON:
            # It was stopped and started again, and no listing showed it.
            edges.append(Edge(False, Bounds(since, mark.when.by)))
        elif not mark.on and state is GpuState.OFF:
            # It ran, and no listing showed it.
            edges.append(Edge(True, Bounds(since, mark.when.by)))
        edges.append(mark)
        state, since = (GpuState.ON if mark.on else GpuState.OFF), mark.when.after
    billing = gpu_billing(sight.word)
    # It may have run between: it was about to, and no time of Novita's says that it did not.
    might = (
        state is GpuState.OFF
        and may_have_run(before.word, sight.word)
        and not edges
        and (sight.started_at is None or sight.started_at not in {0, before.started_at})
    )
    if billing is Billing.BILLED and state is not GpuState.ON:
        edges.append(Edge(True, Bounds(since, until)))
    elif billing is Billing.UNCHANGED and might:
        edges.append(Edge(True, Bounds(since, None)))
    elif sight.word in IN_REMOVAL and state is GpuState.ON and not edges:
        if gpu_billing(before.word) is Billing.BILLED and sight.stopped_at is None:
            # It may have been stopped before its removal, which looks the same then.
            edges += [Edge(False, Bounds(since, until)), Edge(True, Bounds(until, None))]
    elif billing is Billing.FREE:
        if might:
            edges.append(Edge(True, Bounds(since, None)))
        if might or state is not GpuState.OFF:
            edges.append(Edge(False, Bounds(since, until)))
    return edges


@dataclass(frozen=True, slots=True)
class DiskChange:
    """The disk began to be billed as that of a stopped instance, or as that of another one."""

    stopped: bool
    when: Bounds


def disk_changes(before: Before, sight: BillingSight, look: Look) -> list[DiskChange]:
    """Return when the disk's price may have changed since the observation before, in order."""
    changes: list[DiskChange] = []
    stopped, since = before.word == STOPPED, before.known_at
    for mark in marks(before, sight, look):
        if mark.on and stopped:
            # Billing of the GPUs begins some time after the instance has left `exited`.
            changes.append(DiskChange(False, Bounds(since, mark.when.by)))
        elif not mark.on and not stopped:
            changes.append(DiskChange(True, mark.when))
        stopped, since = not mark.on, mark.when.after
    now_stopped = sight.word == STOPPED
    if now_stopped is not stopped and sight.word != REMOVED:
        changes.append(DiskChange(now_stopped, Bounds(since, look.read_at)))
    return changes


def purge(sight: BillingSight, look: Look, stop: Bounds | None = None) -> Bounds | None:
    """Return when the disk of a stopped instance is purged; None if that is not known.

    Args:
        sight: The status, and Novita's own times.
        look: When it was asked.
        stop: When it was stopped; None if it already was at the observation before.
    """
    if sight.word == STOPPED and sight.purged_at and sight.purged_at > (sight.stopped_at or 0):
        told = look.window(sight.purged_at)
        if stop is None or (told.by or 0) > stop.after:
            return told
    if sight.keep_days is None:
        return None
    if stop is None and sight.stopped_at:
        stop = look.window(sight.stopped_at)
    return None if stop is None else stop.later(sight.keep_days * DAY_MS)

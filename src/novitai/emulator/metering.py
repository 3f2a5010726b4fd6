# SPDX-License-Identifier: Apache-2.0
"""Meters what an instance is billed for, from its timeline; no timer runs.

A meter covers the time up to the last change of its instance. Reading it adds the time since then,
from the timeline of the instance as it is now (upstream.md §7, §8).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from novitai.emulator.billing import BilledSpan, extended
from novitai.emulator.instances import BillingMode, Instance, Phase, Status, phase

BILLED = frozenset(
    {
        Status.PULLING,
        Status.RUNNING,
        Status.RESTARTING,
        Status.STOPPING,
        Status.MIGRATING,
        Status.FREEZING,
        Status.RESETTING,
    }
)
"""GPU time is billed in these statuses; `pulling` is documented, the others are assumed."""

FREE = frozenset(
    {
        Status.PENDING,
        Status.TO_CREATE,
        Status.CREATING,
        Status.TO_START,
        Status.STARTING,
        Status.EXITED,
        Status.REMOVED,
    }
)
"""GPU time is not billed in these. In any other status, what held before goes on."""

FREE_STORAGE_GB = 60
"""This much of the container disk is free (upstream.md §8)."""

LIST_STORAGE_PRICE = 500
"""The list price of the container disk in 1/100000 USD per GB-day (upstream.md §8)."""

DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class StorageTariff:
    """The price of a stopped instance's disk per GB-day, and the days until it is purged."""

    exited_price: int
    keep_days: int


@dataclass(frozen=True, slots=True)
class Meter:
    """The spans for which an instance was billed until a virtual time.

    Attributes:
        gpu: The spans of GPU time, oldest first.
        storage: The spans of the container disk above the free size, oldest first.
        starts: When the billing of GPU time began, once for each run.
        stops: When the instance became `exited`.
        runs: Whether GPU time is billed at `until`.
        purged: Whether the disk was purged.
    """

    until: float
    gpu: tuple[BilledSpan, ...] = ()
    storage: tuple[BilledSpan, ...] = ()
    starts: tuple[float, ...] = ()
    stops: tuple[float, ...] = ()
    runs: bool = False
    purged: bool = False

    @property
    def lines(self) -> tuple[tuple[BilledSpan, ...], ...]:
        """The two lines of its bills."""
        return self.gpu, self.storage

    def started_at(self, at: float) -> float:
        """Return when the run began that was the latest at a time; 0 if there was none."""
        return next((start for start in reversed(self.starts) if start <= at), 0.0)

    def stopped_at(self, at: float) -> float:
        """Return when the instance had last become `exited` at a time; 0 if it never had."""
        return next((stop for stop in reversed(self.stops) if stop <= at), 0.0)


def metered(meter: Meter, instance: Instance, until: float, tariff: StorageTariff) -> Meter:
    """Return the meter with the time up to `until` added."""
    if until <= meter.until:
        return meter
    for begin, end, seen in _phases(instance, meter.until, until):
        meter = _with_storage(
            _with_gpu(meter, instance, begin, end, seen), instance, end, seen, tariff
        )
        meter = replace(meter, until=end)
    return meter


def release_at(seen: Phase, keep_days: int) -> float:
    """Return when the disk of an instance in this phase is purged; 0 if it is not stopped."""
    return seen.since + keep_days * DAY_SECONDS if seen.status is Status.EXITED else 0.0


def milliseconds(at: float) -> int:
    """Return a time in whole milliseconds, rounded down."""
    return int(at * 1000)


def _phases(instance: Instance, begin: float, end: float) -> Iterator[tuple[float, float, Phase]]:
    changes = {step.at for step in instance.steps}
    if instance.spot is not None:
        changes |= {instance.spot.reclaim_at, instance.spot.ended_at}
    for since, until in pairwise([begin, *sorted(at for at in changes if begin < at < end), end]):
        yield since, until, phase(instance, since)


def _with_gpu(meter: Meter, instance: Instance, begin: float, end: float, seen: Phase) -> Meter:
    runs = seen.status in BILLED or (meter.runs and seen.status not in FREE)
    starts, stops, gpu = meter.starts, meter.stops, meter.gpu
    if runs and not meter.runs:
        starts = (*starts, begin)
    if seen.status is Status.EXITED and seen.since not in stops[-1:]:
        stops = (*stops, seen.since)
    if runs and instance.billing_mode is not BillingMode.MONTHLY:
        span = BilledSpan(
            "gpu",
            milliseconds(begin),
            milliseconds(end),
            max(1, instance.gpu_num),
            instance.price * 24,
        )
        gpu = extended(gpu, span)
    return replace(meter, runs=runs, starts=starts, stops=stops, gpu=gpu)


def _with_storage(
    meter: Meter, instance: Instance, end: float, seen: Phase, tariff: StorageTariff
) -> Meter:
    """Add the disk of one phase: a new one if it was purged and the instance runs again."""
    exited = seen.status is Status.EXITED
    purged = meter.purged and seen.status not in BILLED
    release = release_at(seen, tariff.keep_days)
    size = max(0, instance.rootfs_size - FREE_STORAGE_GB)
    paid = instance.billing_mode is BillingMode.MONTHLY
    storage = meter.storage
    if size and not (paid or purged or seen.status is Status.REMOVED):
        price = tariff.exited_price if exited else LIST_STORAGE_PRICE
        until = min(end, release) if exited else end
        span = BilledSpan(
            "cloud_storage", milliseconds(meter.until), milliseconds(until), size, size * price
        )
        storage = extended(storage, span)
    return replace(meter, storage=storage, purged=purged or (exited and end >= release))

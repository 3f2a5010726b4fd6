# SPDX-License-Identifier: Apache-2.0
"""The start configuration of an emulator, and the settings that can change while it runs."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, fields
from typing import Literal

from novitai.emulator.clock import TimeSource

Range = tuple[float, float]

PROTECTION_SECONDS = 3600.0
"""A spot instance is not reclaimed in its first hour (upstream.md §8)."""

NOTICE_SECONDS = 3600.0
"""A reclaim is announced this many seconds in advance (upstream.md §8)."""


@dataclass(frozen=True, slots=True)
class Delays:
    """The range from which each status's duration is drawn, in virtual seconds.

    The sums stay within the durations seen at the API: create to running 60-240 s,
    start 30-180 s, stop and restart at most 60 s.
    """

    pending: Range = (2, 4)
    to_create: Range = (1, 3)
    creating: Range = (20, 60)
    pulling: Range = (45, 150)
    boot: Range = (3, 8)
    to_start: Range = (2, 5)
    starting: Range = (30, 120)
    to_stop: Range = (1, 3)
    stopping: Range = (5, 30)
    to_restart: Range = (1, 3)
    restarting: Range = (10, 40)
    to_remove: Range = (1, 3)
    removing: Range = (5, 20)
    to_reset: Range = (1, 3)
    resetting: Range = (20, 60)
    migrating: Range = (60, 180)
    reclaiming: Range = (20, 40)
    freezing: Range = (300, 600)
    saving: Range = (40, 90)

    def draw(self, rng: random.Random, name: str) -> float:
        """Draw a duration for the status `name`, uniformly from its range."""
        low, high = getattr(self, name)
        return float(rng.uniform(low, high))

    @staticmethod
    def names() -> tuple[str, ...]:
        """The names of all ranges."""
        return tuple(each.name for each in fields(Delays))


LifecycleReply = Literal["object", "state", "empty"]
NameFilter = Literal["works", "ignored", "empty"]


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings; the control API replaces the object, and `reset` restores the initial one.

    Attributes:
        not_found_status: 400 as documented, or 404 (upstream.md §1.3).
        docs_mode: Use the documented types: `node` is a list, sizes and prices are numbers.
        lifecycle_reply: Body of start, stop and the like: `{}`, `{instanceId, state}`, or none.
        storage_create_reply: The created storage as an object, or its ID as a bare string.
        mask_passwords: Show registry passwords as asterisks.
        account_per_key: Each key sees and changes only the instances of its own account.
        removed_linger_seconds: How long a removed row is still listed, in virtual seconds.
        delete_not_found_seconds: How long after its creation a delete of an instance is answered
            "not found", in virtual seconds.
        rate_limit_per_minute: Calls accepted in a real minute; 0 means no limit.
        rate_limit_retry_after: Whether the 429 of the rate limit has a `Retry-After` header.
        balance: The account's balance in 1/10000 USD when it was set; it falls with the bills. At 0
            or less, creates and starts fail, and what runs is frozen.
        voucher: A voucher in 1/10000 USD that pays bills before the balance does.
        bill_delay_seconds: How long after its end the bill of an hour appears, in virtual seconds.
        bill_lists_per_minute: Lists of bills that a key may get in a real minute; 0 means no limit.
        keep_data_days: How long the disk of a stopped instance is kept, in virtual days.
        exited_storage_price: The price of a stopped instance's disk in 1/100000 USD per GB-day;
            None omits `exitedLocalStoragePrice`, and the list price holds.
        release_times: Whether instances have `releaseDataAt`.
        start_stop_times: Whether instances have `lastStartedAt` and `lastStoppedAt`.
        metrics_lag_seconds: Age of the newest point of the metrics, in virtual seconds.
        name_filter: Whether lists filter by `name`, ignore it, or find nothing with it.
        date_offset_seconds: Offset of the `Date` header from the virtual time, in seconds;
            `createdAt` has no such offset. None omits the header.
        creation_times: Whether instances have `createdAt`.
        instance_prices: Whether instances have `instancePrice`.
        spot_lifetime_seconds: Age at which a spot instance gets its reclaim notice, but never in
            the protected hour; None means never.
    """

    not_found_status: Literal[400, 404] = 400
    docs_mode: bool = False
    lifecycle_reply: LifecycleReply = "object"
    storage_create_reply: Literal["object", "string"] = "object"
    mask_passwords: bool = False
    account_per_key: bool = False
    removed_linger_seconds: float = 0.0
    delete_not_found_seconds: float = 0.0
    rate_limit_per_minute: int = 0
    rate_limit_retry_after: bool = True
    balance: int = 1_000_000_000_000
    voucher: int = 0
    bill_delay_seconds: float = 900.0
    bill_lists_per_minute: int = 30
    keep_data_days: int = 7
    exited_storage_price: int | None = 250
    release_times: bool = True
    start_stop_times: bool = True
    metrics_lag_seconds: float = 60.0
    name_filter: NameFilter = "works"
    date_offset_seconds: float | None = 0.0
    creation_times: bool = True
    instance_prices: bool = True
    spot_lifetime_seconds: float | None = None
    delays: Delays = field(default_factory=Delays)


@dataclass(frozen=True, slots=True)
class EmulatorConfig:
    """The start configuration of an emulator.

    Attributes:
        host: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        speed: Virtual seconds per real second.
        api_key: The only key that is accepted; None accepts any that is not empty.
        seed: Makes ids, delays and probabilities repeatable.
        public_url: The base of port-mapping URLs; by default the address of the listening socket
            or, if there is none, the request's `Host`.
        time_source: Returns real monotonic seconds.
        settings: The settings at start and after a reset.
    """

    host: str = "127.0.0.1"
    port: int = 9090
    speed: float = 1.0
    api_key: str | None = None
    seed: int | None = None
    public_url: str | None = None
    time_source: TimeSource = time.monotonic
    settings: Settings = field(default_factory=Settings)

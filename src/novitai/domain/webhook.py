# SPDX-License-Identifier: Apache-2.0
"""What a webhook, a delivery and a try are, and when the next try is due."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from novitai.domain.addresses import read_place
from novitai.domain.event import EventType

TOLD: Final = (
    EventType.CREATED,
    EventType.STARTING,
    EventType.RUNNING,
    EventType.STOPPING,
    EventType.STOPPED,
    EventType.FAILED,
    EventType.MIGRATING,
    EventType.SPOT_RECLAIM_SCHEDULED,
    EventType.TERMINATING,
    EventType.TERMINATED,
    EventType.IDENTITY_UNCONFIRMED,
    EventType.REAPPEARED,
    EventType.DELETE_INEFFECTIVE,
    EventType.ADOPTED,
    EventType.RELEASED,
    EventType.ACCOUNT_CHANGED,
    EventType.ORPHAN_FOUND,
    EventType.ORPHAN_DELETED,
)
"""The events that webhooks are told; the others are for the event log alone.

Those about the account go to standing webhooks only.
"""

MAX_STANDING: Final = 100
"""Standing webhooks that may exist at the same time: every event is written for each of them."""

_MINUTE: Final = 60.0
_HOUR: Final = 3600.0
PAUSES: Final = (
    5.0,
    5 * _MINUTE,
    30 * _MINUTE,
    2 * _HOUR,
    5 * _HOUR,
    10 * _HOUR,
    14 * _HOUR,
    20 * _HOUR,
    24 * _HOUR,
)
"""Seconds from one try to the next; after the last of them the message is dead."""
TRIES: Final = len(PAUSES) + 1
LONGEST_RETRY_AFTER: Final = 24 * _HOUR
"""Seconds that a receiver's `Retry-After` is honoured for, at most."""
SWITCHED_OFF_AFTER: Final = 5 * 24 * 3600 * 1000
"""Milliseconds without one success, and with failures, after which a receiver is switched off."""
FAILURES_APART: Final = 27 * 3600 * 1000
"""Milliseconds: a little more than the longest pause between two tries. Failures further apart are
not one time of failing."""
SECRET_OVERLAP: Final = 24 * 3600 * 1000
"""Milliseconds for which a rotated secret still signs beside the new one."""


class DeliveryStatus(StrEnum):
    """What became of a message to one receiver."""

    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"


class OffReason(StrEnum):
    """Why a webhook is switched off."""

    REQUESTED = "requested"
    GONE = "gone"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Webhook:
    """A receiver that was asked for by itself, or (not `standing`) with an instance.

    Attributes:
        event_types: What it is told; empty means everything.
        failing_since: When it first failed after its last success, in Unix milliseconds.
        off_reason: Why it is not enabled; None while it is.
        previous_secret_until: Until when the secret before the last rotation still signs.
    """

    id: str
    standing: bool
    url: str
    event_types: tuple[EventType, ...]
    enabled: bool
    created_at: int
    updated_at: int
    description: str | None = None
    failing_since: int | None = None
    off_at: int | None = None
    off_reason: OffReason | None = None
    previous_secret_until: int | None = None
    deleted_at: int | None = None

    def wants(self, event_type: EventType) -> bool:
        """Tell whether it is told of such events."""
        return not self.event_types or event_type in self.event_types


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt to deliver; `at` in Unix milliseconds, `response` begins the answer (2 KiB)."""

    at: int
    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to one receiver, `standing` or not: an event of an instance, or of the account."""

    id: str
    webhook_id: str
    instance_id: str | None
    event_id: str
    event_sequence: int
    event_type: EventType
    standing: bool
    url: str
    status: DeliveryStatus
    created_at: int
    due_at: int
    ended_at: int | None
    attempts: Sequence[Try] = ()


def pause_after(tries: int) -> float | None:
    """Return the seconds to wait after so many failed tries; None if that was the last."""
    return PAUSES[tries - 1] if tries <= len(PAUSES) else None


def host_of(url: str) -> str:
    """Name the host and port that a URL leads to, in one spelling and at most 259 characters.

    All that leads to one host shares what it may take. A URL that leads nowhere has a name too,
    since the events of an instance are written whatever its receivers are.
    """
    try:
        host, port = read_place(url)
    except ValueError:
        return id_of_url(url)
    return f"{host.name}:{port}"


def id_of_url(url: str) -> str:
    """Name the receiver behind a URL that came with an instance: one for all that name the same."""
    return "url_" + hashlib.sha256(url.encode()).hexdigest()[:32]

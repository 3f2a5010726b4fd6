# SPDX-License-Identifier: Apache-2.0
"""Types for webhooks, deliveries and delivery attempts, and the retry schedule."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from novitai.domain.addresses import read_place
from novitai.domain.event import EventType

WEBHOOK_EVENTS: Final = (
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
    EventType.LIMIT_NEAR,
    EventType.LIMIT_REACHED,
    EventType.LIMIT_UNENFORCED,
    EventType.AUTOSTOP_WARNING,
    EventType.AUTOSTOP_FIRED,
    EventType.AUTOSTOP_FAILED,
    EventType.AUTOSTOP_SIGNAL_LOST,
    EventType.KEPT,
    EventType.DATA_PURGE_SCHEDULED,
    EventType.ADOPTED,
    EventType.RELEASED,
    EventType.PRICE_CHANGED,
    EventType.ACCOUNT_CHANGED,
    EventType.ORPHAN_FOUND,
    EventType.ORPHAN_DELETED,
    EventType.BUDGET_ALERT,
    EventType.BUDGET_EXCEEDED,
    EventType.COST_UNEXPLAINED,
    EventType.COST_UNKNOWN_OWNER,
    EventType.COST_RECONCILIATION_UNAVAILABLE,
)
"""The event types delivered to webhooks; the others are written to the event log only.

Account events are delivered to standing webhooks only.
"""

MAX_STANDING: Final = 100
"""The most standing webhooks at a time. Every event writes one delivery for each of them."""

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
"""Seconds from one try to the next. If the try after the last pause fails, the message is dead."""
TRIES: Final = len(PAUSES) + 1
LONGEST_RETRY_AFTER: Final = 24 * _HOUR
"""The longest `Retry-After` of a receiver that is honoured, in seconds."""
SWITCHED_OFF_AFTER: Final = 5 * 24 * 3600 * 1000
"""Milliseconds of failures without a success after which a receiver is switched off."""
FAILURES_APART: Final = 27 * 3600 * 1000
"""Milliseconds between two failures beyond which `failing_since` starts again from the later one.

A little more than the longest pause between two tries.
"""
SECRET_OVERLAP: Final = 24 * 3600 * 1000
"""Milliseconds for which deliveries are signed with the old secret as well after a rotation."""


class DeliveryStatus(StrEnum):
    """The state of a message to one receiver."""

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
    """A receiver: `standing` if registered on its own, otherwise given with an instance.

    Attributes:
        event_types: The event types it receives; empty means all.
        failing_since: The first failure after its last success, in Unix milliseconds.
        off_reason: Why it is disabled; None while it is enabled.
        previous_secret_until: When the secret before the last rotation stops signing.
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
        """Return whether the webhook receives events of this type."""
        return not self.event_types or event_type in self.event_types


@dataclass(frozen=True, slots=True)
class Try:
    """One delivery attempt. `at` is in Unix milliseconds; `response` holds the first 2 KiB."""

    at: int
    duration_ms: int
    status_code: int | None = None
    error: str | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message to one receiver: an event of an instance or of the account.

    `standing` says whether the receiver is a standing webhook.
    """

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
    """Return the seconds to wait after `tries` failed tries; None after the last."""
    return PAUSES[tries - 1] if tries <= len(PAUSES) else None


def host_of(url: str) -> str:
    """Return the normalized `host:port` of a URL, at most 259 characters.

    The limits per host are counted by this name. An invalid URL gets a name as well, because the
    events of an instance are written even if its receiver's URL is invalid.
    """
    try:
        host, port = read_place(url)
    except ValueError:
        return id_of_url(url)
    return f"{host.name}:{port}"


def id_of_url(url: str) -> str:
    """Return the receiver ID for the webhook URL of an instance. Equal URLs have equal IDs."""
    return "url_" + hashlib.sha256(url.encode()).hexdigest()[:32]

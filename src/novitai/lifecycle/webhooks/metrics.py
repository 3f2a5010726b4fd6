# SPDX-License-Identifier: Apache-2.0
"""Counts of what came of the tries to deliver messages, since this process began."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class DeliveryOutcome(StrEnum):
    """What came of one try."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """The receiver answered, and not with 2xx."""
    UNREACHABLE = "unreachable"
    """No answer: resolved to nothing or to what is forbidden, not connected, broken off, late."""
    GONE = "gone"
    """The receiver answered 410."""


class DeliveryMetrics:
    """One number for each outcome."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(DeliveryOutcome, 0)
        self.fenced = 0
        """Results that came too late to count: somebody else had taken the line over."""

    def count(self, outcome: DeliveryOutcome) -> None:
        """Count a try."""
        self._counts[outcome] += 1

    def snapshot(self) -> Mapping[DeliveryOutcome, int]:
        """Return the counts of this moment."""
        return dict(self._counts)

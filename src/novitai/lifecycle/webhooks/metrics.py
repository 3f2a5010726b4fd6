# SPDX-License-Identifier: Apache-2.0
"""Counters of delivery attempts by outcome, since the process started."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class DeliveryOutcome(StrEnum):
    """The outcome of one delivery attempt."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    """The receiver answered with another status than 2xx."""
    UNREACHABLE = "unreachable"
    """No answer: not resolved, a forbidden address, no connection, an aborted answer, a timeout."""
    GONE = "gone"
    """The receiver answered 410."""


class DeliveryMetrics:
    """Counts the delivery attempts of this process."""

    def __init__(self) -> None:
        self._counts = dict.fromkeys(DeliveryOutcome, 0)
        self.fenced = 0
        """The number of results that were dropped because another worker had claimed the line."""

    def count(self, outcome: DeliveryOutcome) -> None:
        """Count an attempt."""
        self._counts[outcome] += 1

    def snapshot(self) -> Mapping[DeliveryOutcome, int]:
        """Return a copy of the current counts."""
        return dict(self._counts)

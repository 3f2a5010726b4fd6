# SPDX-License-Identifier: Apache-2.0
"""Counts and durations of the calls to upstream, since this process began.

Keys are endpoints and outcomes, both closed sets, so memory does not grow with traffic.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from novitai.upstream.breaker import BreakerState
from novitai.upstream.errors import CallOutcome
from novitai.upstream.operations import Endpoint

BUCKETS: Final = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the durations' histogram, in seconds."""

_NO_EXCHANGE: Final = frozenset({CallOutcome.BREAKER_OPEN, CallOutcome.NOT_SENT})


@dataclass(slots=True)
class EndpointCalls:
    """The calls of one endpoint.

    Attributes:
        outcomes: How many calls ended in each outcome.
        buckets: How many took at most each bound of `BUCKETS`, and longer; not cumulative.
        seconds: How long they took together.
    """

    outcomes: dict[CallOutcome, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0


class CallMetrics:
    """Observes every call to upstream. A call that was not sent is counted and has no duration."""

    def __init__(self) -> None:
        self._endpoints = {endpoint.label: EndpointCalls() for endpoint in Endpoint}

    def __call__(self, endpoint: str, outcome: CallOutcome, seconds: float) -> None:
        """Count one call of an operation, by its label."""
        counted = self._endpoints[endpoint]
        counted.outcomes[outcome] = counted.outcomes.get(outcome, 0) + 1
        if outcome not in _NO_EXCHANGE:
            counted.buckets[bisect_left(BUCKETS, seconds)] += 1
            counted.seconds += seconds

    @property
    def endpoints(self) -> Mapping[str, EndpointCalls]:
        """The counts by endpoint; every endpoint is there from the start."""
        return self._endpoints


@dataclass(frozen=True, slots=True)
class UpstreamNumbers:
    """The numbers of the calls to upstream at one moment.

    Attributes:
        endpoints: The calls by endpoint.
        permits_waiting: How many calls wait for the rate limiter.
        breakers: The state of each circuit breaker, by the class of operations it guards.
    """

    endpoints: Mapping[str, EndpointCalls]
    permits_waiting: int
    breakers: Mapping[str, BreakerState]

# SPDX-License-Identifier: Apache-2.0
"""Counts and durations of the calls to upstream since the process started.

They are kept by endpoint and outcome, both closed sets, so memory does not grow with traffic.
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
"""Upper bounds of the histogram of durations, in seconds."""

_NO_EXCHANGE: Final = frozenset({CallOutcome.BREAKER_OPEN, CallOutcome.NOT_SENT})


@dataclass(slots=True)
class EndpointCalls:
    """The calls of one endpoint.

    Attributes:
        outcomes: The number of calls by outcome.
        buckets: The number of calls by bucket of `BUCKETS`, the last one above all bounds; not
            cumulative.
        seconds: The sum of the durations.
    """

    outcomes: dict[CallOutcome, int] = field(default_factory=dict)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0


class CallMetrics:
    """Records every call to upstream. A call that was not sent is counted without a duration."""

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
        """The counts by endpoint; every endpoint is present from the start."""
        return self._endpoints


@dataclass(frozen=True, slots=True)
class UpstreamNumbers:
    """A snapshot of the metrics of calls to upstream.

    Attributes:
        endpoints: The calls by endpoint.
        permits_waiting: The number of calls that wait for the rate limiter.
        breakers: The state of each circuit breaker, by its class of operations.
    """

    endpoints: Mapping[str, EndpointCalls]
    permits_waiting: int
    breakers: Mapping[str, BreakerState]

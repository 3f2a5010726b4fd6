# SPDX-License-Identifier: Apache-2.0
"""Metrics of requests: counts, durations and statuses."""

from __future__ import annotations

import pytest

from novitai.telemetry.requests import UNMATCHED, LastMinute, RequestMetrics
from novitai.testing import ManualClock


@pytest.fixture
def metrics(clock: ManualClock) -> RequestMetrics:
    """Metrics on virtual time."""
    return RequestMetrics(clock)


def test_nothing_is_zero(metrics: RequestMetrics) -> None:
    """Before the first request all metrics are 0, and no division by zero occurs."""
    total = metrics.total()
    assert (total.count, total.average, total.least, total.most) == (0, 0, 0, 0)
    assert metrics.last_minute() == LastMinute(0, 0, 0)


def test_durations_are_counted_in_total_and_apart(metrics: RequestMetrics) -> None:
    """Count, sum, minimum, maximum and mean are kept by route, by method and in total."""
    metrics.observe("GET", "/health", 200, 0.2)
    metrics.observe("GET", "/health", 503, 0.4)
    metrics.observe("POST", "/api/instances", 201, 0.1)
    total = metrics.total()
    assert (total.count, total.least, total.most) == (3, 0.1, 0.4)
    assert total.average == pytest.approx(0.7 / 3)
    assert metrics.by_method()["GET"].count == 2
    assert metrics.routes["GET", "/health"].durations.average == pytest.approx(0.3)
    assert metrics.statuses() == {200: 1, 201: 1, 503: 1}


def test_a_request_that_is_held_open_is_counted_and_not_timed(metrics: RequestMetrics) -> None:
    """A long poll changes no latency: neither of its route, nor in total, nor of the minute."""
    metrics.observe("GET", "/wait", 202, None)
    assert metrics.last_minute() == LastMinute(1, 0, 0)
    assert metrics.total().average == 0
    metrics.observe("GET", "/health", 200, 0.2)
    metrics.observe("GET", "/wait", 503, None)
    total = metrics.total()
    assert (total.count, total.total, total.least, total.most) == (3, 0.2, 0.2, 0.2)
    assert total.average == metrics.by_method()["GET"].average == 0.2
    assert metrics.routes["GET", "/wait"].durations.count == 2
    assert metrics.statuses() == {200: 1, 202: 1, 503: 1}
    assert metrics.last_minute() == LastMinute(3, 0.2, 1 / 3)


def test_unknown_methods_are_one(metrics: RequestMetrics) -> None:
    """Clients cannot fill the memory with invented methods or paths."""
    for number in range(100):
        metrics.observe(f"M{number}", UNMATCHED, 404, 0.1)
    assert list(metrics.routes) == [("OTHER", UNMATCHED)]


def test_the_histogram_holds_every_request_once(metrics: RequestMetrics) -> None:
    """Bounds are inclusive, and durations above the last bound are counted too."""
    for seconds in (0.0, 0.001, 0.0011, 31.0):
        metrics.observe("GET", "/health", 200, seconds)
    buckets = metrics.routes["GET", "/health"].buckets
    assert (buckets[0], buckets[1], buckets[-1], sum(buckets)) == (2, 1, 1, 4)


async def test_rates_are_over_the_last_minute(metrics: RequestMetrics, clock: ManualClock) -> None:
    """Requests older than a minute no longer count, even if their slot is reused."""
    metrics.observe("GET", "/health", 500, 1.0)
    await clock.advance(30)
    metrics.observe("GET", "/health", 200, 0.5)
    assert metrics.last_minute() == LastMinute(2, 0.75, 0.5)
    await clock.advance(30)
    assert metrics.last_minute() == LastMinute(1, 0.5, 0.0)
    await clock.advance(30)
    assert metrics.last_minute() == LastMinute(0, 0, 0)
    metrics.observe("GET", "/health", 200, 0.1)
    assert metrics.last_minute().count == 1

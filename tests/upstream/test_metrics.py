# SPDX-License-Identifier: Apache-2.0
"""The numbers of the calls to upstream."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from novitai.testing import ManualClock
from novitai.upstream.breaker import THRESHOLD, BreakerState
from novitai.upstream.errors import BreakerOpen, CallOutcome, UpstreamError
from novitai.upstream.metrics import BUCKETS, CallMetrics
from novitai.upstream.operations import Endpoint
from novitai.upstream.window import SendWindow
from tests.upstream.servers import Maker


def test_every_endpoint_is_there_from_the_start() -> None:
    """A dashboard finds the series of an endpoint that was never called."""
    assert set(CallMetrics().endpoints) == {operation.label for operation in Endpoint}


def test_calls_are_counted_by_endpoint_and_outcome() -> None:
    """A call that was sent has a duration; one that was not is counted alone."""
    calls = CallMetrics()
    calls("stop", CallOutcome.OK, 0.04)
    calls("stop", CallOutcome.OK, 0.05)
    calls("stop", CallOutcome.TIMEOUT, 61.0)
    calls("stop", CallOutcome.BREAKER_OPEN, 0.0)
    calls("stop", CallOutcome.NOT_SENT, 0.0)
    stop = calls.endpoints["stop"]
    assert stop.outcomes == {
        CallOutcome.OK: 2,
        CallOutcome.TIMEOUT: 1,
        CallOutcome.BREAKER_OPEN: 1,
        CallOutcome.NOT_SENT: 1,
    }
    expected = [0] * (len(BUCKETS) + 1)
    expected[BUCKETS.index(0.05)] = 2
    expected[-1] = 1
    assert stop.buckets == expected
    assert stop.seconds == pytest.approx(61.09)
    assert calls.endpoints["start"].outcomes == {}


async def test_the_breaker_that_opens_is_shown(make: Maker, clock: ManualClock) -> None:
    """Faults of writes open the breaker of their class, which the numbers tell, and no other."""
    calls = CallMetrics()
    client = make.of(lambda _: httpx2.Response(500), observer=calls)
    window = SendWindow.lasting(clock, 60_000)
    for _ in range(THRESHOLD):
        with pytest.raises(UpstreamError):
            await client.start("a", window=window)
    assert client.breaker_states() == {
        "catalogue": BreakerState.CLOSED,
        "instances": BreakerState.CLOSED,
        "create": BreakerState.CLOSED,
        "lifecycle": BreakerState.OPEN,
    }
    with pytest.raises(BreakerOpen):
        await client.start("a", window=window)
    assert calls.endpoints["start"].outcomes == {
        CallOutcome.SERVER_ERROR: THRESHOLD,
        CallOutcome.BREAKER_OPEN: 1,
    }


async def test_calls_that_wait_for_a_permit_are_shown(make: Maker, clock: ManualClock) -> None:
    """The number of waiting calls is that of this moment."""
    client = make.of(lambda _: httpx2.Response(200, json={"data": []}), calls_per_minute=1)
    await client.clusters()
    assert client.permits_waiting == 0
    task = asyncio.create_task(client.clusters())
    for _ in range(10):
        await asyncio.sleep(0)
    assert client.permits_waiting == 1
    while not task.done():
        await clock.advance(10)
    assert client.permits_waiting == 0

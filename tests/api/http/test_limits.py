# SPDX-License-Identifier: Apache-2.0
"""Tests of the token buckets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.api.http.limits import Buckets, Quota
from novitai.domain.api_key import KeyRequest, Scope
from novitai.testing import ManualClock
from tests.api.application import Api

QUOTA = Quota(capacity=120, per_minute=100)


class SteppedClock(ManualClock):
    """Virtual time on which no task sleeps."""

    def step(self, seconds: float) -> None:
        """Advance the time."""
        self._move_to(self.monotonic() + seconds)


def test_a_full_bucket_allows_its_capacity_and_no_more() -> None:
    """A full bucket allows its capacity of 120 at once; the 121st call has to wait."""
    buckets = Buckets(QUOTA, SteppedClock())
    assert [buckets.take("a").allowed for _ in range(121)] == [True] * 120 + [False]


def test_waiting_as_long_as_was_said_is_enough() -> None:
    """`Retry-After` is in whole seconds, at least one, and waiting that long is enough."""
    clock = SteppedClock()
    buckets = Buckets(QUOTA, clock)
    for _ in range(500):
        taken = buckets.take("a")
        if not taken.allowed:
            assert taken.retry_after >= 1
            clock.step(taken.retry_after)
            assert buckets.take("a").allowed


def test_a_hundred_come_back_each_minute() -> None:
    """Over a long time, exactly 100 calls per minute are allowed."""
    clock = SteppedClock()
    buckets = Buckets(QUOTA, clock)
    allowed = 0
    for _ in range(6000):
        clock.step(0.1)
        allowed += buckets.take("a").allowed
    assert allowed == pytest.approx(120 + 1000, abs=1)


@given(seed=st.integers())
def test_no_stretch_of_time_allows_more_than_was_promised(seed: int) -> None:
    """No window allows more than the capacity plus the tokens added in it."""
    source = random.Random(seed)
    clock = SteppedClock()
    buckets = Buckets(Quota(5, 60), clock)
    times = []
    for _ in range(200):
        clock.step(source.choice((0.0, 0.1, 0.9, 1.0, 3.0)))
        if buckets.take("a").allowed:
            times.append(clock.monotonic())
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= 5 + (times[last] - times[first]) + 1e-6


def test_remaining_and_reset_are_told() -> None:
    """The result has the tokens left and the time until the bucket is full."""
    buckets = Buckets(QUOTA, SteppedClock())
    first = buckets.take("a")
    assert (first.remaining, first.reset) == (119, 1)
    for _ in range(119):
        last = buckets.take("a")
    assert (last.remaining, last.reset) == (0, 72)


def test_keys_do_not_share_a_bucket() -> None:
    """Calls with one key do not limit another key."""
    buckets = Buckets(Quota(1, 1), SteppedClock())
    assert buckets.take("a").allowed
    assert not buckets.take("a").allowed
    assert buckets.take("b").allowed


def test_strangers_push_no_limited_key_out() -> None:
    """Invented keys cannot evict a limited key; beyond the maximum they share one bucket."""
    clock = SteppedClock()
    buckets = Buckets(Quota(2, 2), clock, max_buckets=10)
    assert [buckets.take("limited").allowed for _ in range(3)] == [True, True, False]
    made_up = [buckets.take(f"made up {number}").allowed for number in range(1000)]
    assert sum(made_up) == 8 + 2
    assert not buckets.take("limited").allowed
    clock.step(30)
    assert buckets.take("limited").allowed


def test_memory_is_bounded() -> None:
    """Full buckets are removed, and their number is bounded."""
    clock = SteppedClock()
    buckets = Buckets(QUOTA, clock, max_buckets=50)
    for number in range(200):
        buckets.take(str(number))
    assert len(buckets) == 50
    clock.step(60)
    for number in range(60):
        buckets.take(f"again {number}")
    assert 0 < len(buckets) <= 50
    clock.step(60)
    for _ in range(50):
        buckets.take("one")
    assert len(buckets) == 1


async def test_too_many_calls_of_one_key_are_refused(api: Api) -> None:
    """A call over the limit is 429 with `Retry-After`; every counted response has `RateLimit`."""
    for _ in range(120):
        answer = await api.call("GET", "/api/instances")
        assert answer.status_code == 200
    assert answer.headers["RateLimit-Policy"] == '"key";q=120;w=72'
    assert answer.headers["RateLimit"] == '"key";r=0;t=72'
    refused = await api.call("GET", "/api/instances/inst_1")
    assert refused.status_code == 429
    error = refused.json()["error"]
    assert (error["code"], error["category"], error["retryable"]) == (
        "RATE_LIMIT_EXCEEDED",
        "RATE_LIMIT_ERROR",
        True,
    )
    assert refused.headers["Retry-After"] == "1"
    assert "RateLimit" in refused.headers
    await api.clock.advance(1)
    assert (await api.call("GET", "/api/instances")).status_code == 200


async def test_another_key_and_health_are_not_refused(api: Api) -> None:
    """Each key has its own bucket, and `/health` is not limited."""
    for _ in range(121):
        await api.call("GET", "/api/instances")
    assert (await api.call("GET", "/api/instances", scope=Scope.READ)).status_code == 200
    healthy = await api.call("GET", "/health")
    assert healthy.status_code == 200
    assert "RateLimit" not in healthy.headers


async def test_failed_authentication_is_limited_per_address_and_never_a_good_key(
    api: Api,
) -> None:
    """20 failures a minute are allowed, then 429; a valid key from that address still works."""
    answers = [(await api.call("GET", "/api/instances", scope=None)) for _ in range(21)]
    assert [answer.status_code for answer in answers] == [401] * 20 + [429]
    assert int(answers[-1].headers["Retry-After"]) >= 1
    assert (await api.call("GET", "/api/instances")).status_code == 200
    await api.clock.advance(int(answers[-1].headers["Retry-After"]))
    assert (await api.call("GET", "/api/instances", scope=None)).status_code == 401


async def test_a_refused_scope_is_counted(api: Api) -> None:
    """A call that is refused for its scope also takes a token."""
    made = await api.services.keys.create(KeyRequest("r", frozenset({Scope.READ})))
    headers = {"Authorization": f"Bearer {made.text}"}
    answers = [
        await api.call("POST", "/api/keys", scope=None, body={}, headers=headers)
        for _ in range(121)
    ]
    assert [answer.status_code for answer in answers] == [403] * 120 + [429]

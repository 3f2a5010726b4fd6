# SPDX-License-Identifier: Apache-2.0
"""Upstream's health for /health, without a call."""

from __future__ import annotations

import pytest

from novitai.testing import ManualClock
from novitai.upstream.breaker import Breaker, CallVerdict
from novitai.upstream.errors import (
    BreakerOpen,
    Gone,
    KeyRefused,
    NotSent,
    ServerError,
    Timeout,
    UpstreamError,
)
from novitai.upstream.health import HealthRecord

FAULT = ServerError("x", http_status=500)


@pytest.fixture
def record() -> HealthRecord:
    """An empty record."""
    return HealthRecord()


def test_nothing_known_is_not_down(record: HealthRecord) -> None:
    """A process that has just started reports upstream as healthy."""
    assert not record.snapshot([]).down


def test_three_faults_in_a_row_are_down(record: HealthRecord) -> None:
    """Three consecutive faults mean down; two do not."""
    record.failed(FAULT)
    record.failed(Timeout("x"))
    assert not record.snapshot([]).down
    record.failed(FAULT)
    assert record.snapshot([]).down


@pytest.mark.parametrize("answer", [None, Gone("x", http_status=404)])
def test_an_answer_is_a_sign_of_life(record: HealthRecord, answer: UpstreamError | None) -> None:
    """A success or a refusal resets the count of faults."""
    for _ in range(3):
        record.failed(FAULT)
    if answer is None:
        record.answered()
    else:
        record.failed(answer)
    assert not record.snapshot([]).down


@pytest.mark.parametrize("error", [NotSent("x"), BreakerOpen("x", retry_after=1)])
def test_what_was_never_sent_says_nothing(record: HealthRecord, error: UpstreamError) -> None:
    """A call that was never sent changes nothing."""
    for _ in range(2):
        record.failed(FAULT)
    record.failed(error)
    assert record.snapshot([]).faults_in_a_row == 2


def test_a_refused_key_is_down_until_it_is_accepted(record: HealthRecord) -> None:
    """A refused key means down until a call succeeds; a 400 is not enough."""
    record.failed(KeyRefused("x", http_status=401))
    record.failed(Gone("x", http_status=404))
    assert record.snapshot([]).key_refused
    assert record.snapshot([]).down
    record.answered()
    assert not record.snapshot([]).down


async def test_an_open_breaker_is_down_until_it_may_be_tried(
    record: HealthRecord, clock: ManualClock
) -> None:
    """An open breaker means down until its cool-down ends by the clock."""
    breaker = Breaker("create", clock=clock, threshold=1)
    breaker.settle(breaker.enter(), CallVerdict.FAULT)
    assert record.snapshot([breaker]).open_breakers == ("create",)
    assert record.snapshot([breaker]).down
    await clock.advance(10)
    assert not record.snapshot([breaker]).down

# SPDX-License-Identifier: Apache-2.0
"""What /health may know of upstream without asking it."""

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
    """A record that knows nothing yet."""
    return HealthRecord()


def test_nothing_known_is_not_down(record: HealthRecord) -> None:
    """A process that has just started is healthy."""
    assert not record.snapshot([]).down


def test_three_faults_in_a_row_are_down(record: HealthRecord) -> None:
    """Two are not."""
    record.failed(FAULT)
    record.failed(Timeout("x"))
    assert not record.snapshot([]).down
    record.failed(FAULT)
    assert record.snapshot([]).down


@pytest.mark.parametrize("answer", [None, Gone("x", http_status=404)])
def test_an_answer_is_a_sign_of_life(record: HealthRecord, answer: UpstreamError | None) -> None:
    """A success, and a refusal likewise."""
    for _ in range(3):
        record.failed(FAULT)
    if answer is None:
        record.answered()
    else:
        record.failed(answer)
    assert not record.snapshot([]).down


@pytest.mark.parametrize("error", [NotSent("x"), BreakerOpen("x", retry_after=1)])
def test_what_was_never_sent_says_nothing(record: HealthRecord, error: UpstreamError) -> None:
    """Neither good nor bad."""
    for _ in range(2):
        record.failed(FAULT)
    record.failed(error)
    assert record.snapshot([]).faults_in_a_row == 2


def test_a_refused_key_is_down_until_it_is_accepted(record: HealthRecord) -> None:
    """A 400 does not prove that the key was looked at; a success does."""
    record.failed(KeyRefused("x", http_status=401))
    record.failed(Gone("x", http_status=404))
    assert record.snapshot([]).key_refused
    assert record.snapshot([]).down
    record.answered()
    assert not record.snapshot([]).down


async def test_an_open_breaker_is_down_until_it_may_be_tried(
    record: HealthRecord, clock: ManualClock
) -> None:
    """The clock alone decides: /health needs no call."""
    breaker = Breaker("create", clock=clock, threshold=1)
    breaker.settle(breaker.enter(), CallVerdict.FAULT)
    assert record.snapshot([breaker]).open_breakers == ("create",)
    assert record.snapshot([breaker]).down
    await clock.advance(10)
    assert not record.snapshot([breaker]).down

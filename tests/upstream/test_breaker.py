# SPDX-License-Identifier: Apache-2.0
"""The breaker: what opens and closes it, and which calls it always admits."""

from __future__ import annotations

import pytest

from novitai.testing import ManualClock
from novitai.upstream.breaker import Breaker, BreakerState, CallVerdict
from novitai.upstream.errors import BreakerOpen

FAULT, SUCCESS, ANSWERED, NOTHING = (
    CallVerdict.FAULT,
    CallVerdict.SUCCESS,
    CallVerdict.ANSWERED,
    CallVerdict.NOTHING,
)


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    """A breaker that opens after three faults for ten seconds, at most 40."""
    return Breaker("create", clock=clock, threshold=3, cool_down=10, max_cool_down=40)


def call(breaker: Breaker, verdict: CallVerdict, *, bypass: bool = False) -> None:
    """Make a call with this verdict."""
    breaker.settle(breaker.enter(bypass=bypass), verdict)


def state(breaker: Breaker) -> BreakerState:
    """Return the current state."""
    return breaker.state


def trip(breaker: Breaker) -> None:
    """Open the breaker."""
    for _ in range(3):
        call(breaker, FAULT)


def test_faults_in_a_row_open_it(breaker: Breaker) -> None:
    """Consecutive faults open the breaker, and its error has the seconds to wait."""
    trip(breaker)
    with pytest.raises(BreakerOpen) as caught:
        breaker.enter()
    assert caught.value.retry_after == 10


def test_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    """Only consecutive faults count."""
    for verdict in (FAULT, FAULT, SUCCESS, FAULT, FAULT):
        call(breaker, verdict)
    assert state(breaker) is BreakerState.CLOSED


def test_refusals_and_cancellations_neither_open_nor_heal(breaker: Breaker) -> None:
    """A 4xx and a cancelled call change neither the state nor the count."""
    for _ in range(20):
        call(breaker, ANSWERED)
        call(breaker, NOTHING)
    assert state(breaker) is BreakerState.CLOSED
    for verdict in (FAULT, FAULT, ANSWERED, NOTHING, FAULT):
        call(breaker, verdict)
    assert state(breaker) is BreakerState.OPEN


async def test_time_alone_half_opens_it(breaker: Breaker, clock: ManualClock) -> None:
    """The breaker becomes half-open by the clock alone."""
    trip(breaker)
    await clock.advance(10)
    assert state(breaker) is BreakerState.HALF_OPEN


async def test_one_probe_at_a_time(breaker: Breaker, clock: ManualClock) -> None:
    """A half-open breaker admits one call at a time."""
    trip(breaker)
    await clock.advance(10)
    breaker.enter()
    for _ in range(50):
        with pytest.raises(BreakerOpen):
            breaker.enter()


@pytest.mark.parametrize("verdict", [SUCCESS, ANSWERED])
async def test_an_answer_to_the_probe_closes_it(
    breaker: Breaker, clock: ManualClock, verdict: CallVerdict
) -> None:
    """A 4xx to the probe also proves that upstream works."""
    trip(breaker)
    await clock.advance(10)
    call(breaker, verdict)
    assert state(breaker) is BreakerState.CLOSED


async def test_each_failed_probe_doubles_the_wait_up_to_a_bound(
    breaker: Breaker, clock: ManualClock
) -> None:
    """The waits are 10, 20, 40 and 40 s, and 10 s again after the breaker was closed."""
    trip(breaker)
    for wait in (10, 20, 40, 40):
        assert breaker.retry_after == wait
        await clock.advance(wait)
        call(breaker, FAULT)
    await clock.advance(40)
    call(breaker, SUCCESS)
    trip(breaker)
    assert breaker.retry_after == 10


async def test_a_cancelled_probe_makes_room_for_another(
    breaker: Breaker, clock: ManualClock
) -> None:
    """After a cancelled probe another one is admitted."""
    trip(breaker)
    await clock.advance(10)
    call(breaker, NOTHING)
    breaker.enter()


async def test_a_probe_that_vanishes_expires(breaker: Breaker, clock: ManualClock) -> None:
    """A probe without a verdict does not block the breaker for ever."""
    trip(breaker)
    await clock.advance(10)
    breaker.enter()
    await clock.advance(59)
    with pytest.raises(BreakerOpen):
        breaker.enter()
    await clock.advance(2)
    breaker.enter()


async def test_a_late_verdict_from_before_changes_nothing(
    breaker: Breaker, clock: ManualClock
) -> None:
    """The verdict of a call admitted before a change of state is ignored."""
    early = [breaker.enter() for _ in range(10)]
    trip(breaker)
    breaker.settle(early[0], SUCCESS)
    assert state(breaker) is BreakerState.OPEN
    await clock.advance(10)
    call(breaker, SUCCESS)
    for ticket in early[1:]:
        breaker.settle(ticket, FAULT)
    assert state(breaker) is BreakerState.CLOSED


async def test_deletes_are_never_kept_out_for_good(breaker: Breaker, clock: ManualClock) -> None:
    """While other calls keep failing, one insistent call is admitted every ten seconds."""
    trip(breaker)
    with pytest.raises(BreakerOpen):
        breaker.enter(bypass=True)
    entered, waits = 0, []
    for _ in range(300):
        await clock.advance(1)
        for bypass in (False, True):
            try:
                call(breaker, FAULT, bypass=bypass)
                entered += bypass
            except BreakerOpen as refusal:
                if bypass:
                    waits.append(refusal.retry_after)
    assert entered >= 20
    assert max(waits) <= 10


async def test_a_delete_gets_in_past_a_probe_that_hangs(
    breaker: Breaker, clock: ManualClock
) -> None:
    """A delete is admitted while a probe hangs, and its success closes the breaker."""
    trip(breaker)
    await clock.advance(10)
    breaker.enter()
    await clock.advance(10)
    call(breaker, SUCCESS, bypass=True)
    assert state(breaker) is BreakerState.CLOSED

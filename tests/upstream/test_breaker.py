# SPDX-License-Identifier: Apache-2.0
"""The breaker: what opens it, what closes it, and whom it may not keep out."""

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
    """Opens at three faults for ten seconds, forty at most."""
    return Breaker("create", clock=clock, threshold=3, cool_down=10, max_cool_down=40)


def call(breaker: Breaker, verdict: CallVerdict, *, bypass: bool = False) -> None:
    """Make a call that ends so."""
    breaker.settle(breaker.enter(bypass=bypass), verdict)


def state(breaker: Breaker) -> BreakerState:
    """Look where it stands now."""
    return breaker.state


def trip(breaker: Breaker) -> None:
    """Open it."""
    for _ in range(3):
        call(breaker, FAULT)


def test_faults_in_a_row_open_it(breaker: Breaker) -> None:
    """And it says how long to stay away."""
    trip(breaker)
    with pytest.raises(BreakerOpen) as caught:
        breaker.enter()
    assert caught.value.retry_after == 10


def test_a_success_in_between_starts_the_count_again(breaker: Breaker) -> None:
    """Only faults in a row count."""
    for verdict in (FAULT, FAULT, SUCCESS, FAULT, FAULT):
        call(breaker, verdict)
    assert state(breaker) is BreakerState.CLOSED


def test_refusals_and_cancellations_neither_open_nor_heal(breaker: Breaker) -> None:
    """A wrong id is no outage, and no proof that there is none."""
    for _ in range(20):
        call(breaker, ANSWERED)
        call(breaker, NOTHING)
    assert state(breaker) is BreakerState.CLOSED
    for verdict in (FAULT, FAULT, ANSWERED, NOTHING, FAULT):
        call(breaker, verdict)
    assert state(breaker) is BreakerState.OPEN


async def test_time_alone_half_opens_it(breaker: Breaker, clock: ManualClock) -> None:
    """Nothing has to happen for the state to be right."""
    trip(breaker)
    await clock.advance(10)
    assert state(breaker) is BreakerState.HALF_OPEN


async def test_one_probe_at_a_time(breaker: Breaker, clock: ManualClock) -> None:
    """Half-open lets one call in, however many ask."""
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
    """A 4xx proves that upstream works."""
    trip(breaker)
    await clock.advance(10)
    call(breaker, verdict)
    assert state(breaker) is BreakerState.CLOSED


async def test_each_failed_probe_doubles_the_wait_up_to_a_bound(
    breaker: Breaker, clock: ManualClock
) -> None:
    """10, 20, 40, 40; and 10 again after it was closed."""
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
    """It said nothing."""
    trip(breaker)
    await clock.advance(10)
    call(breaker, NOTHING)
    breaker.enter()


async def test_a_probe_that_vanishes_expires(breaker: Breaker, clock: ManualClock) -> None:
    """A lost ticket does not hold the door shut for ever."""
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
    """A call let in while it was closed neither re-opens nor closes what came after."""
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
    """While others keep failing and the waits grow, one bypassing call in ten seconds gets in."""
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
    """And its success closes the breaker."""
    trip(breaker)
    await clock.advance(10)
    breaker.enter()
    await clock.advance(10)
    call(breaker, SUCCESS, bypass=True)
    assert state(breaker) is BreakerState.CLOSED

# SPDX-License-Identifier: Apache-2.0
"""The parts of the engines: the agenda, the back-off and the metrics."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novitai.ids import Ids
from novitai.jobs.agenda import Agenda
from novitai.jobs.backoff import Backoff
from novitai.jobs.metrics import JobMetrics
from novitai.testing import ManualClock


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 50))))
def test_an_agenda_holds_the_last_time_of_each_key(puts: list[tuple[str, int]]) -> None:
    """Each key comes out once, at the last time set for it; of equal times, in the order put."""
    agenda = Agenda()
    for key, at in puts:
        agenda.put(("x", key), at)
    out = []
    while (first := agenda.first()) is not None:
        item = agenda.pop(first)
        assert item is not None
        out.append((item[1], first))

    last = {key: (at, number) for number, (key, at) in enumerate(puts)}
    assert out == [(key, last[key][0]) for key in sorted(last, key=lambda key: last[key])]


def test_an_agenda_is_bounded() -> None:
    """New keys beyond the capacity are dropped, and repeated changes of a key use no memory."""
    agenda = Agenda(capacity=3)
    for number in range(1_000):
        agenda.put(("x", str(number)), number)
        agenda.put(("x", "0"), 5_000 - number)

    assert len(agenda) == 3
    assert len(agenda._heap) < 100


def test_an_agenda_gives_nothing_before_its_time() -> None:
    """A key comes out when it is due, and a discarded key never does."""
    agenda = Agenda()
    assert agenda.put(("x", "a"), 100)
    assert not agenda.put(("x", "b"), 200)
    assert agenda.pop(99) is None
    assert agenda.pop(100) == ("x", "a")
    agenda.discard(("x", "b"))
    assert agenda.pop(1_000) is None


def test_a_pause_grows_and_ends_with_success() -> None:
    """Each consecutive failure doubles the pause, and a success resets it."""
    backoff = Backoff(Ids())
    pauses = []
    for _ in range(10):
        backoff.failed("op_1", 0)
        pauses.append(backoff.pause("op_1", 0, nudged=False))
        assert backoff.pause("op_1", 0, nudged=True) <= 1
    expected = [1, 2, 4, 8, 16, 32, 60, 60, 60, 60]
    assert all(0.9 * want <= is_ <= 1.1 * want for want, is_ in zip(expected, pauses, strict=True))
    assert max(pauses) <= 60

    backoff.succeeded("op_1")

    assert backoff.pause("op_1", 0, nudged=False) == 0


def test_failures_are_bounded_and_forgotten() -> None:
    """At most `capacity` failed keys are kept; the oldest are dropped first, old ones expire."""
    backoff = Backoff(Ids(), capacity=2)
    for key in ("a", "b", "c"):
        backoff.failed(key, 0)
    assert backoff.held(0.5) == {"b", "c"}

    backoff.forget_old(62)

    assert len(backoff) == 0


async def test_counts_have_a_mean_a_span_and_a_last_minute() -> None:
    """Durations include successful and failed runs; the rate covers the last minute."""
    clock = ManualClock()
    metrics = JobMetrics(clock)
    metrics.register("x")
    assert metrics.snapshot()["x"].seconds_mean == 0
    metrics.processed("x", 1.0)
    metrics.failed("x", 3.0)
    await clock.advance(30)
    metrics.processed("x", 2.0)

    stats = metrics.snapshot()["x"]
    assert (stats.processed, stats.failed, stats.seconds_sum) == (2, 1, 6.0)
    assert (stats.seconds_min, stats.seconds_max, stats.seconds_mean) == (1.0, 3.0, 2.0)
    assert stats.processed_last_minute == 2
    await clock.advance(30)
    assert metrics.snapshot()["x"].processed_last_minute == 1
    await clock.advance(30)
    assert metrics.snapshot()["x"].processed_last_minute == 0

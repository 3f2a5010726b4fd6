# SPDX-License-Identifier: Apache-2.0
"""The beginning of runs and of stops, as listings show them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novitai.domain.runs import Run, Seen, follow_run, is_billable

AT = 1_760_000_000_000
AFTER = AT - 60_000


def seen(word: str, **more: int) -> Seen:
    """Return the state in a listing that began at `AT`, a minute after the one before."""
    return Seen(word, at=AT, after=AFTER, **more)


@pytest.mark.parametrize(
    ("word", "billed"),
    [
        ("pending", False),
        ("toCreate", False),
        ("creating", False),
        ("toStart", False),
        ("starting", False),
        ("exited", False),
        ("removed", False),
        ("pulling", True),
        ("running", True),
        ("toRestart", True),
        ("restarting", True),
        ("toStop", True),
        ("stopping", True),
        ("resetting", True),
        ("migrating", True),
        ("freezing", True),
        ("removing", True),
    ],
)
def test_what_is_billed(word: str, billed: bool) -> None:
    """A run is every status from `pulling` to the stop."""
    assert is_billable(word) is billed
    run = follow_run(Run(), "starting", seen(word))
    assert (run.began_at is not None) is billed


def test_a_run_begins_at_the_earliest_moment() -> None:
    """The last listing that showed no run is its earliest begin."""
    assert follow_run(Run(), "creating", seen("pulling")) == Run(began_at=AFTER)


@pytest.mark.parametrize(
    ("told", "began_at"),
    [
        (AT - 20_000, AT - 20_000),
        (AFTER - 500, AFTER),
        (AFTER - 5_000, AFTER),
        (AT + 5_000, AFTER),
    ],
)
def test_novitas_time_narrows_the_interval_it_lies_in(told: int, began_at: int) -> None:
    """A time outside of the interval is not used; times are in whole seconds."""
    assert follow_run(Run(), "starting", seen("running", started_at=told)).began_at == began_at


@pytest.mark.parametrize("word", ["running", "restarting", "stopping", "migrating", "freezing"])
def test_a_run_goes_on(word: str) -> None:
    """Nothing but a stop ends a run, not even a restart."""
    before = Run(began_at=AT - 3_600_000)
    assert follow_run(before, "running", seen(word, started_at=AT - 10_000)) == before


@pytest.mark.parametrize("word", ["toRemove", "removing"])
def test_a_deletion_begins_no_run(word: str) -> None:
    """A stopped instance that is being deleted stays stopped; one that runs stays in its run."""
    for before, previous in ((Run(exited_at=STARTED_MS), "exited"), (Run(STARTED_MS), "running")):
        assert follow_run(before, previous, seen(word)) == before


STARTED_MS = AT - 3_600_000


@pytest.mark.parametrize(
    ("previous", "told", "goes_on"),
    [
        ("migrating", None, True),
        ("running", None, False),
        ("migrating", 0, True),
        ("running", 0, True),
        ("running", STARTED_MS - 5_000, True),
        ("migrating", AT - 30_000, False),
        ("running", AT - 30_000, False),
        ("running", AT + 30_000, True),
    ],
)
def test_a_migration_that_starts_again_is_no_new_run(
    previous: str, told: int | None, goes_on: bool
) -> None:
    """Only a stop ends a run; where Novita tells no stops, only a migration goes on."""
    before = Run(began_at=STARTED_MS)
    after = follow_run(before, previous, replace(seen("starting"), stopped_at=told))
    assert after == (before if goes_on else Run())


def test_a_stop_and_a_start_between_two_listings_begin_another_run() -> None:
    """Novita's two times show both."""
    before = Run(began_at=AT - 3_600_000)
    now = seen("running", stopped_at=AT - 40_000, started_at=AT - 20_000)
    assert follow_run(before, "running", now) == Run(began_at=AT - 20_000)


def test_an_earlier_stop_begins_no_other_run() -> None:
    """The stop before this run is no news."""
    before = Run(began_at=AT - 3_600_000)
    now = seen("running", stopped_at=AT - 4_000_000, started_at=AT - 3_600_000)
    assert follow_run(before, "running", now) == before


def test_a_stop_begins_at_the_latest_moment() -> None:
    """Nothing is deleted earlier than the user said."""
    run = Run(began_at=AT - 3_600_000)
    assert follow_run(run, "running", seen("exited")) == Run(exited_at=AT)
    told = seen("exited", stopped_at=AT - 30_000)
    assert follow_run(run, "running", told) == Run(exited_at=AT - 30_000)


def test_a_stop_goes_on_and_a_later_one_is_another() -> None:
    """A run that no listing showed ends the stop before it."""
    stop = Run(exited_at=AT - 3_600_000)
    assert follow_run(stop, "exited", seen("exited")) == stop
    same = seen("exited", stopped_at=AT - 3_605_000)
    assert follow_run(stop, "exited", same) == stop
    again = seen("exited", stopped_at=AT - 30_000)
    assert follow_run(stop, "exited", again) == Run(exited_at=AT - 30_000)


def test_nothing_is_left_of_a_removed_instance() -> None:
    """Neither a run nor a stop."""
    assert follow_run(Run(began_at=AT - 1), "running", seen("removed")) == Run()


def test_a_run_whose_begin_was_not_recorded() -> None:
    """Its begin is Novita's time, or else the last time known."""
    told = seen("running", started_at=AT - 7_200_000)
    assert follow_run(Run(), "running", told) == Run(began_at=AT - 7_200_000)
    assert follow_run(Run(), "running", replace(told, started_at=None)) == Run(began_at=AFTER)

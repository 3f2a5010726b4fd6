# SPDX-License-Identifier: Apache-2.0
"""Tables of the verbs' decisions by status, age of the listing, and calls made."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from novitai.domain.instance import InstanceStatus, Observed
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.progress import Call, Progress
from novitai.lifecycle.operations.goals import (
    INCOMPLETE_LISTINGS_WITHOUT,
    LISTINGS_WITHOUT,
    LOOK_ANYWAY,
    LOOK_SOON,
    MAX_ASKS,
    MIGRATION_DEADLINE,
    NOT_TAKEN,
    PATIENCE,
    READINESS_DEADLINE,
    STOP_DEADLINE,
    TOLD_AFTER,
    URGENT_PATIENCE,
    Ask,
    GiveUp,
    LookUp,
    ProbePorts,
    Reached,
    TurnBack,
    Wait,
    incomplete_error,
    note_detours,
    note_moved,
    removed,
    serving,
    started,
    stopped,
)
from novitai.lifecycle.operations.steps import Claimed
from novitai.store.queries.coordination import Looked
from novitai.testing import an_instance
from tests.domain.making import TESTER

NOW: Final = 1_800_000_000_000
ACTED: Final = NOW - 100_000
"""When the last call was made, by default."""
NEVER: Final = Call()
DECISION = Reached | Ask | ProbePorts | LookUp | Wait | GiveUp | TurnBack


def the_claim(
    word: str | None,
    *,
    call: Call = NEVER,
    listed_at: int = NOW - 1,
    looked_at: int | None = None,
    acted_at: int | None = ACTED,
    kind: OperationKind = OperationKind.STOP,
    incomplete: int = 0,
    missing: tuple[int, int] = (0, 0),
    unlisted: tuple[int, int] = (0, 0),
    error: str | None = None,
    gone: bool = False,
    **progress: Any,
) -> Claimed:
    """Return a claimed operation with a listed status and progress.

    `listed_at` is when a listing last changed the row; `looked_at` is when the last complete
    listing began, by default the same. `missing` and `unlisted` are (since when, how many times).
    """
    observed = Observed(
        status=word,
        at=listed_at,
        error=error,
        gone=gone,
        missing_since=missing[0] or None,
        missing_count=missing[1],
        unlisted_since=unlisted[0] or None,
        unlisted_count=unlisted[1],
    )
    instance = replace(an_instance(InstanceStatus.RUNNING), observed=observed, acted_at=acted_at)
    remembered = replace(Progress(call=call), **progress)
    operation = Operation.begin(
        "op_1", kind, instance.id, "ask", NOW, progress=remembered, actor=TESTER
    )
    at = listed_at if looked_at is None else looked_at
    return Claimed(operation, instance, (), Looked(at, at, incomplete))


def asked(ago: int = 10_000, asks: int = 1, **more: Any) -> Call:
    """Return calls, the last of them `ago` milliseconds ago."""
    tried_at = more.pop("tried_at", NOW - ago)
    made = Call(asked_at=NOW - ago, asks=asks, tried_at=tried_at)
    return replace(made, **more)


LONG_AGO: Final = PATIENCE + 5_000
OVERDUE: Final = NOW - STOP_DEADLINE - 10
STOP_FAILED = GiveUp("STOP_FAILED", "It was asked to stop and kept running")
STOP_TIMEOUT = GiveUp("STOP_TIMEOUT", "It did not stop in time")


@pytest.mark.parametrize(
    ("claimed", "decision", "cleanup"),
    [
        # No call was made.
        (the_claim("running"), Ask(), Ask()),
        (the_claim("migrating"), Ask(), Wait(NOW + LOOK_ANYWAY)),
        (the_claim("exited"), Reached(), Reached()),
        (the_claim("exited", listed_at=ACTED - 1), Reached(), Ask()),
        # The call was made, but the listing is older.
        (
            the_claim("exited", call=asked(), listed_at=ACTED - 1),
            Wait(NOW + LOOK_SOON),
            Wait(NOW + LOOK_ANYWAY),
        ),
        # The call was made a moment ago.
        (
            the_claim("running", call=asked()),
            Wait(NOW + LOOK_ANYWAY),
            Wait(NOW + LOOK_ANYWAY),
        ),
        (
            the_claim("stopping", call=asked()),
            Wait(NOW + LOOK_ANYWAY),
            Wait(NOW + LOOK_ANYWAY),
        ),
        (the_claim("exited", call=asked()), Reached(), Reached()),
        # The call was made long ago, and the newer listing shows no effect.
        (the_claim("running", call=asked(LONG_AGO)), Ask(), Ask()),
        (the_claim("stopping", call=asked(LONG_AGO)), Wait(NOW + LOOK_ANYWAY), Ask()),
        (the_claim("freezing", call=asked(LONG_AGO)), Wait(NOW + LOOK_ANYWAY), Ask()),
        (the_claim("running", call=asked(LONG_AGO, MAX_ASKS)), STOP_FAILED, Ask()),
        # The deadline has passed, and the listing is newer than it.
        (
            the_claim("running", call=asked(LONG_AGO, tried_at=OVERDUE)),
            STOP_TIMEOUT,
            Ask(),
        ),
        (
            the_claim("running", call=asked(LONG_AGO, MAX_ASKS, tried_at=OVERDUE)),
            STOP_TIMEOUT,
            STOP_FAILED,
        ),
        # The deadline has passed, but there was no listing since: no decision.
        (
            the_claim(
                "running",
                call=asked(LONG_AGO, MAX_ASKS, tried_at=OVERDUE),
                looked_at=OVERDUE + STOP_DEADLINE,
                listed_at=ACTED + 1,
            ),
            STOP_FAILED,
            Ask(),
        ),
    ],
)
def test_what_a_stop_does_next(claimed: Claimed, decision: DECISION, cleanup: DECISION) -> None:
    """A stop gives up where a clean-up insists; neither decides by an old listing."""
    assert stopped(claimed, NOW) == decision
    assert stopped(claimed, NOW, insist=True) == cleanup


ACCEPTED: Final = asked(accepted=True)
SINCE: Final = NOW - 5_000
"""A time after the default call of `asked`."""


@pytest.mark.parametrize(
    ("claimed", "decision"),
    [
        (the_claim("running", urgent=True), Ask()),
        (the_claim("running", call=asked(URGENT_PATIENCE - 1), urgent=True), Wait(NOW + LOOK_SOON)),
        (the_claim("running", call=asked(URGENT_PATIENCE), urgent=True), Ask()),
        (the_claim("running", call=asked(LONG_AGO, asks=50), urgent=True), Ask()),
        (
            the_claim("running", call=asked(LONG_AGO, asks=9, tried_at=OVERDUE), urgent=True),
            Ask(),
        ),
        (the_claim("stopping", call=asked(LONG_AGO), urgent=True), Wait(NOW + LOOK_SOON)),
        (the_claim("exited", call=asked(), urgent=True), Reached()),
    ],
)
def test_what_the_stop_of_a_limit_does_next(claimed: Claimed, decision: DECISION) -> None:
    """It is asked again after 10 seconds, and never gives up."""
    assert stopped(claimed, NOW) == decision


@pytest.mark.parametrize(
    ("claimed", "decision"),
    [
        (the_claim("running"), Ask()),
        (the_claim("removing"), Ask()),
        (the_claim("removed"), Reached()),
        (the_claim("running", gone=True), Reached()),
        # Accepted: two complete listings without it prove the deletion, one does not.
        (the_claim("running", call=ACCEPTED, missing=(SINCE, LISTINGS_WITHOUT)), Reached()),
        (
            the_claim("running", call=ACCEPTED, missing=(SINCE, LISTINGS_WITHOUT - 1)),
            Wait(NOW + LOOK_SOON),
        ),
        # It was absent before the call, or no call was accepted: no proof.
        (
            the_claim("running", call=ACCEPTED, missing=(NOW - 20_000, LISTINGS_WITHOUT)),
            Wait(NOW + LOOK_SOON),
        ),
        (
            the_claim("running", call=asked(), missing=(SINCE, LISTINGS_WITHOUT)),
            Wait(NOW + LOOK_SOON),
        ),
        # Listings with wrong totals prove less.
        (
            the_claim(
                "running",
                call=ACCEPTED,
                incomplete=1,
                unlisted=(SINCE, INCOMPLETE_LISTINGS_WITHOUT),
            ),
            LookUp(),
        ),
        (
            the_claim(
                "running",
                call=ACCEPTED,
                incomplete=1,
                unlisted=(SINCE, INCOMPLETE_LISTINGS_WITHOUT - 1),
            ),
            Wait(NOW + LOOK_SOON),
        ),
        (
            the_claim("running", call=ACCEPTED, incomplete=1, unlisted=(NOW - 20_000, 9)),
            Wait(NOW + LOOK_SOON),
        ),
        # The call is repeated without limit, but not while the instance is being removed.
        (the_claim("running", call=asked(LONG_AGO, 99)), Ask()),
        (the_claim("removing", call=asked(LONG_AGO, 99)), Wait(NOW + LOOK_SOON)),
    ],
)
def test_what_a_delete_does_next(claimed: Claimed, decision: DECISION) -> None:
    """A deletion ends only by proof and never gives up."""
    assert removed(claimed, NOW) == decision


IN_TIME: Final = NOW + 60_000
TOO_LATE: Final = NOW - 10
NOT_SEEN = GiveUp("READINESS_TIMEOUT", "It was not seen running in time")
STAYED = TurnBack("START_FAILED", "It was asked to start and stayed stopped", unchanged=False)
NOT_READY = GiveUp("READINESS_TIMEOUT", "Not ready within 10 minutes: it was not seen running")
BROKEN = GiveUp("INSTANCE_FAILED", "Novita reports: broken")
OLD: Final = ACTED - 1


@pytest.mark.parametrize(
    ("claimed", "give_up_at", "start", "restart"),
    [
        (the_claim("exited"), IN_TIME, Ask(), Ask()),
        (the_claim("exited"), TOO_LATE, NOT_TAKEN, NOT_TAKEN),
        # There was no listing since the call.
        (
            the_claim("exited", call=asked(LONG_AGO), listed_at=OLD),
            IN_TIME,
            Wait(NOW + LOOK_SOON),
            Wait(NOW + LOOK_SOON),
        ),
        (
            the_claim("exited", call=asked(LONG_AGO), listed_at=OLD),
            TOO_LATE,
            Wait(NOW + LOOK_SOON),
            Wait(NOW + LOOK_SOON),
        ),
        # A new error of Novita ends it; an earlier one does not.
        (the_claim("starting", call=asked(), error="broken"), IN_TIME, BROKEN, BROKEN),
        (
            the_claim("starting", call=asked(), error="broken", known_error="broken", moved=True),
            IN_TIME,
            Wait(NOW + LOOK_ANYWAY),
            Wait(NOW + LOOK_ANYWAY),
        ),
        # The instance stays stopped.
        (
            the_claim("exited", call=asked()),
            IN_TIME,
            Wait(NOW + LOOK_ANYWAY),
            Wait(NOW + LOOK_ANYWAY),
        ),
        (the_claim("exited", call=asked()), TOO_LATE, NOT_SEEN, NOT_SEEN),
        (the_claim("exited", call=asked(unsure=True)), TOO_LATE, NOT_TAKEN, NOT_TAKEN),
        (the_claim("exited", call=asked(LONG_AGO)), IN_TIME, Ask(), Ask()),
        (the_claim("exited", call=asked(LONG_AGO)), TOO_LATE, NOT_TAKEN, NOT_TAKEN),
        (the_claim("exited", call=asked(LONG_AGO, MAX_ASKS)), IN_TIME, STAYED, STAYED),
        # It is running: a start probes it; a restart must first see another status.
        (
            the_claim("running", call=asked()),
            IN_TIME,
            ProbePorts(),
            Wait(NOW + LOOK_ANYWAY),
        ),
        (the_claim("running", call=asked(), moved=True), IN_TIME, ProbePorts(), ProbePorts()),
        (the_claim("running", call=asked(LONG_AGO)), IN_TIME, ProbePorts(), ProbePorts()),
        (the_claim("running", call=asked(LONG_AGO, unsure=True)), IN_TIME, ProbePorts(), Ask()),
        (
            the_claim("running", call=asked(LONG_AGO, MAX_ASKS, unsure=True)),
            IN_TIME,
            ProbePorts(),
            NOT_TAKEN,
        ),
        # It is in a transient status.
        (
            the_claim("starting", call=asked(), moved=True),
            IN_TIME,
            Wait(NOW + LOOK_ANYWAY),
            Wait(NOW + LOOK_ANYWAY),
        ),
        (the_claim("starting", call=asked(), moved=True), TOO_LATE, NOT_READY, NOT_READY),
    ],
)
def test_what_a_start_does_next(
    claimed: Claimed, give_up_at: int, start: DECISION, restart: DECISION
) -> None:
    """A restart is not repeated on a guess, and no verb decides by an old listing."""
    kinds = OperationKind.START, OperationKind.RESTART
    found = [started(claimed, NOW, kind=kind, give_up_at=give_up_at) for kind in kinds]
    assert found == [start, restart]


@pytest.mark.parametrize(
    ("claimed", "give_up_at", "decision"),
    [
        (the_claim("running"), IN_TIME, ProbePorts()),
        (the_claim("running"), TOO_LATE, ProbePorts()),
        (the_claim("pulling"), IN_TIME, Wait(NOW + LOOK_ANYWAY)),
        (the_claim("pulling"), NOW + 7, Wait(NOW + 7)),
        (the_claim("pulling"), TOO_LATE, NOT_READY),
        (the_claim("pulling", listed_at=TOO_LATE), TOO_LATE, Wait(NOW + LOOK_SOON)),
        # A migration has a deadline of one hour.
        (
            the_claim("migrating", migrating_since=NOW - 10),
            TOO_LATE,
            Wait(NOW + LOOK_ANYWAY),
        ),
        (
            the_claim("migrating", migrating_since=NOW - MIGRATION_DEADLINE - 10),
            IN_TIME,
            GiveUp("MIGRATION_TIMEOUT", "The migration did not end in an hour"),
        ),
    ],
)
def test_what_is_done_until_it_serves(
    claimed: Claimed, give_up_at: int, decision: DECISION
) -> None:
    """A running instance is probed; otherwise it is awaited until the deadline."""
    assert serving(claimed, NOW, give_up_at=give_up_at) == decision


def test_a_detour_is_noted_and_its_start_is_kept() -> None:
    """The start of a migration is recorded, and cleared after its end."""
    first = note_detours(the_claim("migrating"), NOW)
    assert (first.progress.migrating_since, first.progress.detour_at) == (NOW, NOW)
    later = note_detours(first, NOW + 50)
    assert (later.progress.migrating_since, later.progress.detour_at) == (NOW, NOW + 50)
    over = note_detours(the_claim("running", migrating_since=NOW, detour_at=NOW + 50), NOW + 60)
    assert (over.progress.migrating_since, over.progress.detour_at) == (None, NOW + 50)


@pytest.mark.parametrize(
    ("claimed", "moved"),
    [
        (the_claim("restarting"), True),
        (the_claim("restarting", listed_at=OLD), False),
        (the_claim("running"), False),
        (the_claim("running", call=asked(unsure=True)), True),
        (the_claim("running", call=asked(unsure=True), listed_at=OLD, looked_at=NOW), False),
    ],
)
def test_when_a_restart_counts_as_seen(claimed: Claimed, moved: bool) -> None:
    """Another status counts; if the outcome of the call is unknown, any change does."""
    assert note_moved(claimed).progress.moved is moved


def test_waiting_for_a_listing_that_adds_up_is_told() -> None:
    """From the third incomplete listing on, the operation shows an error."""
    assert incomplete_error(the_claim("running", incomplete=TOLD_AFTER - 1)) is None
    told = incomplete_error(the_claim("running", incomplete=TOLD_AFTER))
    assert told is not None
    assert told[0] == "LISTING_INCOMPLETE"


def test_readiness_is_ten_minutes() -> None:
    """The message contains the deadline in minutes."""
    assert READINESS_DEADLINE == 600_000

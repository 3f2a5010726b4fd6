# SPDX-License-Identifier: Apache-2.0
"""The differences between a listing and the records."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from novitai.domain.account import AccountState, Census, Hold, HoldReason
from novitai.domain.marker import Marker, upstream_name
from novitai.domain.operation import Attempt, AttemptState
from novitai.lifecycle.reconcile import observed_columns
from novitai.lifecycle.reconcile.diff import Difference, Known, Markers, compare
from novitai.store.queries.instances import Tracked
from novitai.upstream import reading
from novitai.upstream.models import Listing, UpstreamInstance

INSTALLATION = "abcdef"
TIMEOUT = 15.0


def row(number: int, name: str = "box", status: str = "running") -> UpstreamInstance:
    """Return a row of a listing."""
    read = reading.instance({"id": f"{number:016x}", "name": name, "status": status})
    assert read is not None
    return read


def tracked(seen: UpstreamInstance, **changes: Any) -> Tracked:
    """Return the record of a row, without differences."""
    ours = Tracked(f"inst_{seen.id}", seen.id, observed_columns.digest(seen), 1, 1, None, 0)
    return replace(ours, **changes)


def attempt(attempt_id: str, **changes: Any) -> Attempt:
    """Return an attempt whose call was sent."""
    made = Attempt(
        id=attempt_id,
        operation_id="op_1",
        instance_id="inst_1",
        upstream_name=upstream_name("box", Marker(INSTALLATION, attempt_id)),
        product_id="p",
        cluster_id="c",
        region="r",
        price=1,
        state=AttemptState.SENT,
        created_at=1_000,
        send_by=11_000,
    )
    return replace(made, **changes)


def diff(
    rows: list[UpstreamInstance],
    ours: list[Tracked],
    attempts: list[Attempt] | None = None,
    *,
    began_at: int = 100_000,
    complete: bool = True,
    whole: bool | None = None,
    **known: Any,
) -> Difference:
    """Compare a listing with the records."""
    listing = Listing(
        began_at,
        tuple(rows),
        complete=complete,
        whole=complete if whole is None else whole,
        total=len(rows),
    )
    markers = Markers(listing, (INSTALLATION,))
    marked = {one.attempt_id for one in markers.all.values() if one and markers.is_ours(one)}
    shown = {one.id: one for one in attempts or [] if one.id in marked}
    facts = Known(ours, attempts=shown, unsettled=attempts or [], **known)
    return compare(listing, markers, facts, TIMEOUT)


def test_what_has_not_changed_costs_no_write() -> None:
    """A row with the same digest is not written."""
    found = diff([row(1)], [tracked(row(1))])
    live = frozenset({tracked(row(1)).id})
    assert found == Difference(census=Census(100_000, "", live, frozenset()))


def test_a_change_is_found_by_its_digest() -> None:
    """Any stored field changes the digest, including passwords."""
    [change] = diff([row(1, status="exited")], [tracked(row(1))]).changed
    assert change.row.status == "exited"
    hidden = replace(row(1), ssh_password="new")
    assert diff([hidden], [tracked(row(1))]).changed


def test_an_older_listing_changes_nothing() -> None:
    """A listing older than the last observation or call is ignored."""
    exited = [row(1, status="exited")]
    assert not diff(exited, [tracked(row(1), obs_at=100_000)]).changed
    assert not diff(exited, [tracked(row(1), acted_at=100_001)]).changed
    assert not diff([], [tracked(row(1), acted_at=100_001)]).missing


def test_absence_counts_in_complete_listings_alone() -> None:
    """Absence from a listing that missed a page does not count."""
    assert not diff([], [tracked(row(1))], complete=False).missing
    [missing] = diff([], [tracked(row(1), missing_since=40_000, missing_count=2)]).missing
    assert (missing.since, missing.count) == (40_000, 3)
    assert missing.worth_a_look(100_000, 180, 60_000)
    assert not missing.worth_a_look(99_999, 180, 60_000)


def test_what_no_listing_has_held_yet_is_looked_up_later() -> None:
    """It may not be listed yet: it gets as long as an attempt has until it counts as absent."""
    never = tracked(row(1), obs_at=None, missing_since=40_000, missing_count=2)
    [missing] = diff([], [never]).missing
    assert not missing.worth_a_look(100_000, 180, 60_000)
    assert not missing.worth_a_look(219_999, 180, 60_000)
    assert missing.worth_a_look(220_000, 180, 60_000)
    assert not missing.worth_a_look(220_000, 180, 240_000)


def test_absences_from_before_our_last_call_do_not_count() -> None:
    """Counting begins with the first listing after the call, complete or not."""
    counted = {
        "missing_since": 40_000,
        "missing_count": 2,
        "unlisted_since": 40_000,
        "unlisted_count": 2,
    }
    [again] = diff([], [tracked(row(1), acted_at=50_000, **counted)]).missing
    assert (again.since, again.count) == (100_000, 1)
    assert (again.unlisted_since, again.unlisted_count) == (100_000, 1)
    [on] = diff([], [tracked(row(1), acted_at=39_999, **counted)]).missing
    assert (on.since, on.count) == (40_000, 3)
    assert (on.unlisted_since, on.unlisted_count) == (40_000, 3)


def test_a_row_that_is_back_ends_its_absence() -> None:
    """A row that is listed again is written, even if nothing else changed."""
    assert diff([row(1)], [tracked(row(1), missing_since=1, missing_count=2)]).changed


def test_instances_of_others_are_unmanaged() -> None:
    """No marker, a foreign marker or an unknown attempt makes it unmanaged."""
    others = [
        row(1, "theirs"),
        row(2, upstream_name("box", Marker("zzzzzz", "a" * 16))),
        row(3, upstream_name("box", Marker(INSTALLATION, "u" * 16))),
    ]
    found = diff(others, [])
    assert [one.upstream_id for one in found.unmanaged] == [one.id for one in others]
    assert not found.sightings


def test_a_marker_finds_its_attempt() -> None:
    """The row is a sighting, and neither unmanaged nor unseen."""
    sent = attempt("a" * 16)
    found = diff([row(1, sent.upstream_name)], [], [sent])
    assert [one.attempt for one in found.sightings] == [sent]
    assert not found.unmanaged
    assert not found.unseen


def test_an_attempt_is_unseen_only_after_its_request_is_over() -> None:
    """Listings count from the end of the call, or from its latest end."""
    sent = attempt("a" * 16)
    assert not diff([], [], [sent], began_at=26_000).unseen
    [unseen] = diff([], [], [sent], began_at=26_001).unseen
    assert (unseen.since, unseen.count) == (26_000, 1)
    ended = attempt("a" * 16, state=AttemptState.UNKNOWN, ended_at=2_000)
    assert not diff([], [], [ended], began_at=2_000).unseen
    assert diff([], [], [ended], began_at=2_001).unseen


def test_absence_of_an_attempt_needs_five_listings_over_the_whole_time() -> None:
    """Both the number of listings and the time are needed."""
    four = attempt("a" * 16, ended_at=1_000, unseen_count=4, unseen_since=1_000)
    [enough] = diff([], [], [four], began_at=181_000).unseen
    assert enough.is_absent(181_000, 180)
    assert not enough.is_absent(180_999, 180)
    [few] = diff([], [], [replace(four, unseen_count=3)], began_at=181_000).unseen
    assert not few.is_absent(181_000, 180)
    assert not diff([], [], [four], began_at=181_000, complete=False).unseen


def test_what_a_hold_is_about_stays_missing_though_it_was_never_listed() -> None:
    """A held record stays missing after a new key is accepted."""
    bought = tracked(row(2), obs_at=None, acted_at=None)
    hold = Hold(HoldReason.KEY_CHANGED, 1, (bought.id,), "")
    state = AccountState(keys=("before", ""), hold=hold)
    census = diff([row(1)], [tracked(row(1)), bought], account=state).census
    assert census is not None
    assert census.missing == {bought.id}

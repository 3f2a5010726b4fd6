# SPDX-License-Identifier: Apache-2.0
"""The rules for holds: missing records are believed to be gone, or held until it is explained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novitai.domain.account import (
    AccountState,
    Census,
    HoldReason,
    confirmed,
    counts_as_live,
    gone_after,
    judge,
    missing_digest,
)
from novitai.domain.instance import InstanceStatus

OURS, OTHER = "key-of-ours", "key-of-another"
KNOWN = AccountState(keys=(OURS,))
RESTORED = replace(KNOWN, restored_at=1)


def census(live: int, missing: int, key: str = OURS, at: int = 1_000) -> Census:
    """Return the census of a listing with `live` live records, of which some are missing."""
    ids = [f"inst_{number}" for number in range(live)]
    return Census(at, key, frozenset(ids), frozenset(ids[:missing]))


# live records, missing ones -> whether the account is held, with the same key and no restore
SAME_KEY = {
    (1, 0): False,
    (1, 1): False,
    (2, 1): False,
    (2, 2): False,
    (3, 1): False,
    (3, 2): False,
    (3, 3): True,
    (10, 1): False,
    (10, 2): False,
    (10, 3): True,
    (10, 10): True,
    (15, 3): False,
    (16, 3): False,
    (14, 3): True,
    (100, 20): False,
    (100, 21): True,
}


@pytest.mark.parametrize(("live", "missing"), SAME_KEY)
def test_a_disappearance_with_the_same_key(live: int, missing: int) -> None:
    """A hold begins if at least three, and more than a fifth, are missing from one listing."""
    state = judge(KNOWN, census(live, missing))
    held = SAME_KEY[live, missing]
    assert (state.hold is not None) is held
    assert state.blocked is held
    if state.hold is not None:
        assert state.hold.reason is HoldReason.DISAPPEARED
        assert state.hold.missing == tuple(sorted(census(live, missing).missing))


@pytest.mark.parametrize("live", [1, 2, 3, 10])
def test_with_another_key_one_missing_record_is_enough(live: int) -> None:
    """If no record is seen with a new key, every missing record causes a hold."""
    state = judge(KNOWN, census(live, live, OTHER))
    assert state.hold is not None
    assert state.hold.reason is HoldReason.KEY_CHANGED
    assert state.keys == (OURS,)


def test_a_key_is_taken_over_once_a_known_record_is_seen_with_it() -> None:
    """A rotated key of the same account is accepted silently if nothing is missing."""
    state = judge(KNOWN, census(3, 0, OTHER))
    assert state == AccountState(keys=(OURS, OTHER))
    assert judge(state, census(3, 1, OTHER)).hold is None


@pytest.mark.parametrize(("live", "missing"), [(2, 1), (3, 1), (10, 2), (10, 9)])
def test_a_key_that_shows_some_records_explains_none_that_it_lacks(live: int, missing: int) -> None:
    """Records that a new key does not show are held until they are seen or confirmed."""
    state = judge(KNOWN, census(live, missing, OTHER))
    assert state.keys == (OURS, OTHER)
    for key in (OTHER, OTHER, OURS, OTHER):
        assert state.hold is not None
        assert state.hold.reason is HoldReason.KEY_CHANGED
        assert state.hold.missing == tuple(sorted(census(live, missing).missing))
        state = judge(state, census(live, missing, key))
    assert judge(state, census(live, 0, OTHER)) == AccountState(keys=(OURS, OTHER))
    assert confirmed(state) == AccountState(keys=(OURS, OTHER))


def test_a_key_of_before_explains_nothing_either() -> None:
    """A record last seen with one known key and missing with the other causes a hold."""
    both = AccountState(keys=(OURS, OTHER))
    held = judge(both, census(3, 1, OURS))
    assert held.hold is not None
    assert held.hold.reason is HoldReason.KEY_CHANGED
    assert judge(both, census(3, 1, OTHER)).hold is None
    assert judge(both, census(3, 0, OURS)) == AccountState(keys=(OTHER, OURS))


def test_a_hold_that_is_confirmed_with_a_key_of_before_is_over() -> None:
    """After the confirmation, the key of the hold is the last key."""
    held = judge(AccountState(keys=(OURS, OTHER)), census(3, 3, OURS))
    assert held.hold is not None
    assert confirmed(held) == AccountState(keys=(OTHER, OURS))


def test_a_key_is_taken_over_where_there_is_nothing_to_lose() -> None:
    """Without live records, any key is accepted."""
    state = judge(KNOWN, census(0, 0, OTHER))
    assert state.keys == (OTHER,)
    assert not state.blocked
    assert not state.same_account(OURS, OTHER)


@pytest.mark.parametrize("live", [1, 2, 3, 10])
def test_in_a_restored_database_one_missing_record_is_enough(live: int) -> None:
    """The account is held, and stays blocked until a person confirms, even if they are seen."""
    held = judge(RESTORED, census(live, 1))
    assert held.hold is not None
    assert held.hold.reason is HoldReason.RESTORED
    seen = judge(held, census(live, 0))
    assert seen.hold is None
    assert seen.blocked
    assert not confirmed(seen).blocked


def test_a_hold_ends_when_they_are_seen_again() -> None:
    """A hold keeps its start time while it changes, and leaves no state behind."""
    held = judge(KNOWN, census(5, 5, at=1_000))
    changed = judge(held, census(5, 4, at=2_000))
    assert changed.hold is not None
    assert changed.hold.since == 1_000
    assert len(changed.hold.missing) == 4
    assert judge(changed, census(5, 0, at=3_000)) == KNOWN


def test_a_hold_lasts_for_those_that_stay_missing() -> None:
    """The return of some records does not prove that the others are gone."""
    held = judge(KNOWN, census(5, 5))
    for missing in (2, 1):
        held = judge(held, census(5, missing))
        assert held.hold is not None
        assert len(held.hold.missing) == missing
    assert judge(held, census(5, 0)) == KNOWN


def test_a_hold_for_a_key_ends_with_the_right_key() -> None:
    """The previous key is still known."""
    held = judge(KNOWN, census(5, 5, OTHER))
    assert judge(held, census(5, 0, OURS)) == KNOWN


def test_what_a_person_confirms_is_the_set_that_was_shown() -> None:
    """The digest identifies the set in any order; the confirmed key becomes the only one."""
    assert missing_digest(["b", "a"]) == missing_digest(["a", "b"])
    assert missing_digest(["a"]) != missing_digest(["a", "b"])
    held = judge(KNOWN, census(2, 2, OTHER))
    assert held.hold is not None
    assert held.hold.digest == missing_digest(census(2, 2).missing)
    assert confirmed(held) == AccountState(keys=(OTHER,))


def test_the_first_listing_ever_sets_the_key() -> None:
    """The first key is accepted, because there is nothing to compare it with."""
    assert judge(AccountState(), census(2, 0)).keys == (OURS,)


@pytest.mark.parametrize("status", InstanceStatus)
@pytest.mark.parametrize("word", [None, "running", "exited", "toRemove", "removing", "removed"])
@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("deleting", [True, False])
def test_what_we_delete_ourselves_is_not_missed(
    status: InstanceStatus, word: str | None, *, seen: bool, deleting: bool
) -> None:
    """Records that have ended, are ending or were never listed cannot start a hold."""
    counts = counts_as_live(status, word, seen=seen, delete_accepted=deleting)
    going = word in {"toRemove", "removing", "removed"}
    ending = status.ended or status is InstanceStatus.TERMINATING
    assert counts is (seen and not deleting and not going and not ending)


def test_a_delete_that_waits_explains_no_absence_in_a_doubtful_account() -> None:
    """A delete that was not accepted does not explain an absence from a doubtful account."""
    ending, facts = InstanceStatus.TERMINATING, {"seen": True, "delete_accepted": False}
    assert counts_as_live(ending, "running", **facts, doubtful=True)
    assert not counts_as_live(ending, "running", **facts)


def test_the_absence_of_few_takes_longer_to_be_believed() -> None:
    """One or two live records must be absent for ten minutes instead of one."""
    assert [gone_after(live) for live in (0, 1, 2, 3, 10)] == [
        600_000,
        600_000,
        600_000,
        60_000,
        60_000,
    ]


def test_two_keys_are_of_one_account_once_both_are_known() -> None:
    """An attempt without a key, from an older version, counts as bought with the same account."""
    both = AccountState(keys=(OURS, OTHER))
    assert both.same_account(OURS, OTHER)
    assert KNOWN.same_account("", OTHER)
    assert KNOWN.same_account(OURS, OURS)
    assert not KNOWN.same_account(OURS, OTHER)

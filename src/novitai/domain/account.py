# SPDX-License-Identifier: Apache-2.0
"""Whether what a listing does not show is believed: a mass disappearance, another key, a backup.

An account that suddenly lacks our instances is more often the wrong account, a broken listing or a
restored database than an account in which everything was deleted. While that is open, a hold
stands: no write call leaves, and no absence ends anything. Pure functions over a small state.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from novitai.domain.instance import InstanceStatus
from novitai.domain.status import Observation, read_word

MASS: Final = 3
"""So many records must be missing from one listing before that is a mass disappearance."""
MASS_SHARE: Final = 0.2
"""The share of the live records of which more must be missing."""
FEW: Final = 2
"""Up to so many live records no mass can be told; their absence takes longer to be believed."""
GONE_AFTER: Final = 60_000
GONE_AFTER_OF_FEW: Final = 600_000
"""Milliseconds of absence before a look-up may prove that an instance is gone."""
_GOING: Final = frozenset({Observation.REMOVING, Observation.REMOVED})


class HoldReason(StrEnum):
    """Why absence is not believed."""

    DISAPPEARED = "disappeared"
    KEY_CHANGED = "key_changed"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Hold:
    """A disappearance that is not believed.

    Attributes:
        reason: What makes it doubtful.
        since: When it began, in Unix milliseconds.
        missing: The ids of the records that are missing, in order.
        key: The digest of the upstream key with which they were not seen.
    """

    reason: HoldReason
    since: int
    missing: tuple[str, ...]
    key: str

    @property
    def digest(self) -> str:
        """Name the set that is missing, so that a person confirms just what was shown."""
        return missing_digest(self.missing)


@dataclass(frozen=True, slots=True)
class AccountState:
    """What is remembered of the upstream account.

    Attributes:
        keys: The digests of the upstream keys that are known to open this account. With the last
            of them its records were seen last.
        hold: The disappearance that is not believed, if there is one.
        restored_at: When it was found that the database was restored or copied, in Unix
            milliseconds; None once a person has confirmed it.
        filter_works: Whether the listing's filter by name has found an instance of ours.
    """

    keys: tuple[str, ...] = ()
    hold: Hold | None = None
    restored_at: int | None = None
    filter_works: bool = False

    @property
    def blocked(self) -> bool:
        """Whether no write call may leave."""
        return self.hold is not None or self.restored_at is not None

    def same_account(self, one: str, other: str) -> bool:
        """Whether two keys are known to open the same account; an unknown key is no other."""
        return not one or one == other or {one, other} <= set(self.keys)


@dataclass(frozen=True, slots=True)
class Census:
    """What one complete listing held of the live records.

    Attributes:
        at: When the listing began, in Unix milliseconds.
        key: The digest of the upstream key it was made with.
        live: The ids of the records that count as live and have been seen before, or that are in
            `strange`.
        missing: Those of them that the listing did not hold.
        strange: Those of the missing that no listing has held yet, and that were bought with a key
            which is not known to open this account.
    """

    at: int
    key: str
    live: frozenset[str]
    missing: frozenset[str]
    strange: frozenset[str] = frozenset()


def missing_digest(instance_ids: Iterable[str]) -> str:
    """Name a set of records by a digest of their ids."""
    return hashlib.blake2b("\n".join(sorted(instance_ids)).encode(), digest_size=16).hexdigest()


def counts_as_live(
    status: InstanceStatus,
    last_word: str | None,
    *,
    seen: bool,
    delete_accepted: bool,
    doubtful: bool = False,
) -> bool:
    """Whether the absence of a record with an upstream id would be news.

    A record that we are deleting, or that upstream was last seen removing, is expected to vanish.
    One that no listing has held yet cannot have disappeared from it. Where it is `doubtful` that
    the listing is of the right account, a delete that upstream has not accepted explains nothing.
    """
    ending = status is InstanceStatus.TERMINATING and not doubtful
    going = status.ended or ending or delete_accepted
    return seen and not going and read_word(last_word) not in _GOING


def judge(state: AccountState, census: Census) -> AccountState:
    """Judge a complete listing: take a key over, begin a hold, change it, or end it."""
    reason = _reason(state, census)
    state = _with_key(state, census)
    if reason is None:
        return replace(state, hold=None)
    since = state.hold.since if state.hold else census.at
    missing = tuple(sorted(census.missing))
    return replace(state, hold=Hold(reason, since, missing, census.key))


def _with_key(state: AccountState, census: Census) -> AccountState:
    """Take a key over once an instance known before has been seen with it, or none is known."""
    if census.key in state.keys[-1:]:
        return state
    known = census.key in state.keys
    if (not state.keys and not census.strange) or (not census.live and not known):
        return replace(state, keys=(census.key,))
    if (known and not census.missing) or census.live - census.missing:
        return replace(state, keys=_with_last(state.keys, census.key))
    return state


def _with_last(keys: tuple[str, ...], key: str) -> tuple[str, ...]:
    return (*(one for one in keys if one != key), key)


def _reason(state: AccountState, census: Census) -> HoldReason | None:
    """Say why what is missing is not believed; judged by the key of before this listing.

    A key that shows some of the records and lacks others may open a part of what was seen with the
    one before it: that it is taken over explains none that is missing.
    """
    if not census.missing:
        return None
    another = bool(state.keys) and census.key != state.keys[-1]
    if another or census.strange:
        return HoldReason.KEY_CHANGED
    if state.restored_at is not None:
        return HoldReason.RESTORED
    # That some of them have come back does not prove the others gone.
    if state.hold is not None and not census.missing.isdisjoint(state.hold.missing):
        changed = state.hold.reason is HoldReason.KEY_CHANGED
        return HoldReason.KEY_CHANGED if changed else HoldReason.DISAPPEARED
    mass = len(census.missing) >= MASS and len(census.missing) > MASS_SHARE * len(census.live)
    return HoldReason.DISAPPEARED if mass else None


def gone_after(live: int) -> int:
    """Tell how many milliseconds one of so many live records must be absent before a look-up."""
    return GONE_AFTER_OF_FEW if live <= FEW else GONE_AFTER


def confirmed(state: AccountState) -> AccountState:
    """Take the state as a person has confirmed it: what is missing is gone, the key is ours."""
    keys = state.keys
    if state.hold is not None:
        key = state.hold.key
        keys = _with_last(keys, key) if key in keys else (key,)
    return replace(state, keys=keys, hold=None, restored_at=None)

# SPDX-License-Identifier: Apache-2.0
"""Decide whether to believe that instances missing from a listing are gone.

If many instances are missing at once, the likely cause is a wrong account, a broken listing or a
restored database, not that all of them were deleted. Until a person or a later listing decides, a
hold stops all write calls and no record ends by absence. Pure functions over a small state.
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
"""The least number of records missing from one listing that is a mass disappearance."""
MASS_SHARE: Final = 0.2
"""In a mass disappearance, more than this share of the live records is missing."""
FEW: Final = 2
"""The most live records for which `GONE_AFTER_OF_FEW` applies: too few to show a mass."""
GONE_AFTER: Final = 60_000
GONE_AFTER_OF_FEW: Final = 600_000
"""Milliseconds of absence before a look-up may prove that an instance is gone."""
_GOING: Final = frozenset({Observation.REMOVING, Observation.REMOVED})


class HoldReason(StrEnum):
    """Why the account is on hold."""

    DISAPPEARED = "disappeared"
    KEY_CHANGED = "key_changed"
    RESTORED = "restored"


@dataclass(frozen=True, slots=True)
class Hold:
    """A disappearance of records that is not believed.

    Attributes:
        reason: Why it is not believed.
        since: When it began, in Unix milliseconds.
        missing: The IDs of the missing records, sorted.
        key: The digest of the upstream key that the listing was made with.
    """

    reason: HoldReason
    since: int
    missing: tuple[str, ...]
    key: str

    @property
    def digest(self) -> str:
        """The digest of the missing set; with it a person confirms exactly the set shown."""
        return missing_digest(self.missing)


@dataclass(frozen=True, slots=True)
class AccountState:
    """The stored state of the upstream account.

    Attributes:
        keys: The digests of the upstream keys known to open this account. The last one is the
            key with which the records were last seen.
        hold: The current hold, if any.
        restored_at: When a restored or copied database was detected, in Unix milliseconds; None
            once a person has confirmed it.
        restored_told: Whether the event about that was appended.
        filter_works: Whether the listing's name filter has ever found one of our instances.
    """

    keys: tuple[str, ...] = ()
    hold: Hold | None = None
    restored_at: int | None = None
    restored_told: bool = False
    filter_works: bool = False

    @property
    def blocked(self) -> bool:
        """Whether write calls to Novita are stopped."""
        return self.hold is not None or self.restored_at is not None

    def same_account(self, one: str, other: str) -> bool:
        """Return whether two keys open the same account. An empty `one` counts as the same."""
        return not one or one == other or {one, other} <= set(self.keys)


@dataclass(frozen=True, slots=True)
class Census:
    """The live records, compared with one complete listing.

    Attributes:
        at: When the listing began, in Unix milliseconds.
        key: The digest of the upstream key it was made with.
        live: The IDs of the records that count as live and have been seen before, or are in
            `strange`.
        missing: Those of `live` that are not in the listing.
        strange: Those of `missing` that have never been listed and were bought with a key that is
            not known to open this account.
    """

    at: int
    key: str
    live: frozenset[str]
    missing: frozenset[str]
    strange: frozenset[str] = frozenset()


def missing_digest(instance_ids: Iterable[str]) -> str:
    """Return a digest that identifies a set of records by their IDs."""
    return hashlib.blake2b("\n".join(sorted(instance_ids)).encode(), digest_size=16).hexdigest()


def counts_as_live(
    status: InstanceStatus,
    last_word: str | None,
    *,
    seen: bool,
    delete_accepted: bool,
    doubtful: bool = False,
) -> bool:
    """Return whether a record with an upstream ID is expected in a listing.

    A record that is being deleted, or that Novita was last seen removing, is expected to disappear.
    A record that has never been listed cannot disappear. If it is `doubtful` that the listing is of
    the right account, only a delete that Novita has accepted explains an absence.
    """
    ending = status is InstanceStatus.TERMINATING and not doubtful
    going = status.ended or ending or delete_accepted
    return seen and not going and read_word(last_word) not in _GOING


def judge(state: AccountState, census: Census) -> AccountState:
    """Update the state by a complete listing: accept a key; begin, change or end a hold."""
    reason = _reason(state, census)
    state = _with_key(state, census)
    if reason is None:
        return replace(state, hold=None)
    since = state.hold.since if state.hold else census.at
    missing = tuple(sorted(census.missing))
    return replace(state, hold=Hold(reason, since, missing, census.key))


def _with_key(state: AccountState, census: Census) -> AccountState:
    """Accept the key if it has shown a known instance, or if no instance or key is known."""
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
    """Return why the missing records are not believed to be gone; None if they are believed.

    `state` is the state before this listing, so its last key is the previous key. A new key that
    shows only some of the records may open only part of what the previous key opened. It is
    accepted, but that does not explain the missing records.
    """
    if not census.missing:
        return None
    another = bool(state.keys) and census.key != state.keys[-1]
    if another or census.strange:
        return HoldReason.KEY_CHANGED
    if state.restored_at is not None:
        return HoldReason.RESTORED
    # The return of some of the missing records does not prove that the others are gone.
    if state.hold is not None and not census.missing.isdisjoint(state.hold.missing):
        changed = state.hold.reason is HoldReason.KEY_CHANGED
        return HoldReason.KEY_CHANGED if changed else HoldReason.DISAPPEARED
    mass = len(census.missing) >= MASS and len(census.missing) > MASS_SHARE * len(census.live)
    return HoldReason.DISAPPEARED if mass else None


def gone_after(live: int) -> int:
    """Return the milliseconds a record must be absent before a look-up, for `live` live records."""
    return GONE_AFTER_OF_FEW if live <= FEW else GONE_AFTER


def confirmed(state: AccountState) -> AccountState:
    """Return the state after a person confirms it: the missing are gone and the key is ours."""
    keys = state.keys
    if state.hold is not None:
        key = state.hold.key
        keys = _with_last(keys, key) if key in keys else (key,)
    return replace(state, keys=keys, hold=None, restored_at=None, restored_told=False)

# SPDX-License-Identifier: Apache-2.0
"""The state of the upstream account: holds, accepted keys, unmanaged instances and orphans.

`novitai.domain.account` contains the rules. This module stores their decisions, appends the
events, and carries out a person's confirmation that missing instances are gone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Connection

from novitai.clock import iso
from novitai.domain.account import (
    AccountState,
    Census,
    Hold,
    HoldReason,
    confirmed,
    judge,
    missing_digest,
)
from novitai.domain.actor import SYNC, Actor
from novitai.domain.event import EventType
from novitai.errors import Conflict
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.recorder import Recorder
from novitai.settings import OrphanPolicy
from novitai.store.queries import account, attempts, coordination, instances, operations
from novitai.store.queries.account import Unmanaged
from novitai.store.queries.coordination import Looked

ORPHANS_DELETED_AN_HOUR: Final = 2
ORPHAN_DELETED_AFTER: Final = 600_000
"""Milliseconds for which an orphan must have been known before it may be deleted."""
_HOUR: Final = 3_600_000
_LONGEST_LIST: Final = 100

WHAT_TO_DO: Final[Mapping[HoldReason, str]] = {
    HoldReason.DISAPPEARED: (
        "Many instances are missing from the account at once. If they were deleted on purpose, "
        "confirm it with POST /api/account/confirm; otherwise check NOVITA_API_KEY and Novita"
    ),
    HoldReason.KEY_CHANGED: (
        "The instances are not in the account that NOVITA_API_KEY opens now. Set the key of the "
        "right account, or confirm with POST /api/account/confirm that they are gone"
    ),
    HoldReason.RESTORED: (
        "The database is older than the account: it was restored from a backup or copied. Check "
        "GET /api/instances/unmanaged, adopt your instances, then confirm with "
        "POST /api/account/confirm or `novitai doctor --confirm`"
    ),
}
"""The message of a hold, by its reason: the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class MissingRecord:
    """A record whose instance is missing from the account."""

    instance_id: str
    name: str
    upstream_id: str | None


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of the account as the API and the CLI show it.

    Attributes:
        state: The stored state.
        missing: The missing records of the hold.
        looked: When the account was last listed.
        orphans: How many orphans have not been dismissed.
    """

    state: AccountState
    missing: Sequence[MissingRecord]
    looked: Looked
    orphans: int

    @property
    def missing_digest(self) -> str:
        """The digest of the missing set; with it a person confirms exactly the set shown."""
        return missing_digest(self.state.hold.missing if self.state.hold else ())


class Account:
    """Updates the stored state of the upstream account."""

    def __init__(self, core: Core, policy: OrphanPolicy) -> None:
        self._clock = core.clock
        self._jobs = core.jobs
        self._recorder = core.recorder.by(SYNC)
        self.policy = policy

    def take_census(self, connection: Connection, census: Census) -> AccountState:
        """Update the state by a complete listing; append an event if the hold changes."""
        before = account.load_state(connection)
        after = judge(before, census)
        if after != before:
            self._save(connection, before, after, self._recorder)
        return after

    def found_filter(self, connection: Connection) -> None:
        """Record that the listing's name filter has found one of our instances."""
        state = account.load_state(connection)
        account.save_state(connection, replace(state, filter_works=True))

    def notice_restored(
        self, connection: Connection, seen: Sequence[Unmanaged], *, clock_offset: int | None
    ) -> None:
        """Detect from a listing that the database was restored or copied.

        An orphan whose attempt is not in the database, but which is younger than the newest attempt
        there, was bought by a later state of this database, so this one is a backup or a copy.
        Call this before the listing causes any write call.
        """
        newest = attempts.newest_at(connection)
        strangers = [one for one in _fresh_orphans(connection, seen) if not one.attempt_known]
        if any(_is_younger(one, newest, clock_offset) for one in strangers):
            self.mark_restored(connection)

    def note_unmanaged(self, connection: Connection, seen: Sequence[Unmanaged]) -> None:
        """Replace the list of unmanaged instances, and append an event for each new orphan."""
        account.replace_unmanaged(connection, seen)
        now = self._clock.now()
        for one in _fresh_orphans(connection, seen):
            account.mark_listed(connection, one.upstream_id, orphan_at=now)
            if self.policy is not OrphanPolicy.OFF:
                self._recorder.append_account(
                    connection, EventType.ORPHAN_FOUND, describe_orphan(one)
                )

    def mark_restored(self, connection: Connection) -> None:
        """Record that the database was restored or copied, until a person confirms it."""
        before = account.load_state(connection)
        if before.restored_at is not None:
            return
        after = replace(before, restored_at=self._clock.now(), restored_told=True)
        self._save(connection, before, after, self._recorder)

    def tell_restored(self, connection: Connection) -> None:
        """Append the event about a database that a command has marked as restored or copied."""
        marked = account.load_state(connection)
        if marked.restored_at is None or marked.restored_told:
            return
        before = replace(marked, restored_at=None)
        self._save(connection, before, replace(marked, restored_told=True), self._recorder)

    def orphans_to_delete(self, connection: Connection) -> list[Unmanaged]:
        """Return the orphans that the policy `delete` may delete now: at most two an hour.

        Only those with an attempt in the database. The caller decides whether the attempt made
        them.
        """
        if self.policy is not OrphanPolicy.DELETE:
            return []
        now = self._clock.now()
        left = ORPHANS_DELETED_AN_HOUR - account.orphans_deleted_since(connection, now - _HOUR)
        if left <= 0:
            return []
        found = [one for one in account.orphans(connection) if one.attempt_known]
        listed = account.listed_of(connection, [one.upstream_id for one in found])
        due = [
            one
            for one in found
            if (known := listed.get(one.upstream_id)) is not None
            and known.orphan_at is not None
            and known.dismissed_at is None
            and known.deleted_at is None
            and now - known.orphan_at >= ORPHAN_DELETED_AFTER
        ]
        return due[:left]

    def note_orphan_deleted(self, connection: Connection, orphan: Unmanaged) -> None:
        """Record that the policy has deleted an orphan."""
        account.mark_listed(connection, orphan.upstream_id, deleted_at=self._clock.now())
        self._recorder.append_account(connection, EventType.ORPHAN_DELETED, describe_orphan(orphan))

    def overview(self, connection: Connection) -> Overview:
        """Return the state of the account, to be shown."""
        state = account.load_state(connection)
        missing = _missing_records(connection, state.hold)
        return Overview(
            state, missing, coordination.looked(connection), account.count_orphans(connection)
        )

    def confirm(self, connection: Connection, digest: str | None, actor: Actor) -> int:
        """End the hold: accept the missing records as gone, or a restored database as it is.

        Args:
            connection: A write transaction.
            digest: The digest of the missing set that the person was shown.
            actor: The person.

        Returns:
            How many records were missing.

        Raises:
            Conflict: `NOTHING_TO_CONFIRM`: there is no hold, or another set is missing now.
        """
        state = account.load_state(connection)
        missing = state.hold.missing if state.hold else ()
        shown = missing_digest(missing)
        if not state.blocked or (digest != shown and (missing or digest is not None)):
            raise Conflict(
                "Nothing is held"
                if not state.blocked
                else "Another set of instances is missing now: look at GET /api/account",
                code="NOTHING_TO_CONFIRM",
                details={"missingDigest": shown} if state.blocked else None,
            )
        now = self._clock.now()
        recorder = self._recorder.by(actor)
        for instance_id in missing:
            instance = instances.lock(connection, instance_id)
            if instance is None or instance.status.ended:
                continue
            instances.update_columns(connection, instance_id, {"obs_gone": True, "obs_at": now})
            recorder.refresh_status(connection, instance_id)
            running = operations.running(connection, instance_id)
            if running is not None:
                operations.wake(connection, [running.id], now=now)
                self._jobs.nudge(connection, running.kind.job, running.id)
        self._save(connection, state, confirmed(state), recorder)
        return len(missing)

    def _save(
        self,
        connection: Connection,
        before: AccountState,
        after: AccountState,
        recorder: Recorder,
    ) -> None:
        account.save_state(connection, after)
        if before.hold is not None and after.hold is None:
            # The listings of a hold prove nothing, not even that a create call bought nothing.
            attempts.count_absence_anew(connection, self._clock.now())
        self._emit_change(connection, before, after, recorder)

    @staticmethod
    def _emit_change(
        connection: Connection, before: AccountState, after: AccountState, recorder: Recorder
    ) -> None:
        """Append an event if a hold begins, changes or ends; accepting a key appends none."""
        if (before.hold, before.restored_at) == (after.hold, after.restored_at):
            return
        data: dict[str, object] = {"held": after.blocked}
        reason = after.hold.reason if after.hold else None
        if reason is None and after.restored_at is not None:
            reason = HoldReason.RESTORED
        if reason is None:
            data["message"] = "The account matches the records again, or a person has confirmed it"
        else:
            missing = after.hold.missing if after.hold else ()
            records = _missing_records(connection, after.hold)
            data |= {
                "reason": reason.value,
                "message": WHAT_TO_DO[reason],
                "missing": [
                    {"instanceId": one.instance_id, "name": one.name, "upstreamId": one.upstream_id}
                    for one in records
                ],
                "missingCount": len(missing),
                "missingDigest": missing_digest(missing),
            }
        recorder.append_account(connection, EventType.ACCOUNT_CHANGED, data)


def describe_orphan(orphan: Unmanaged) -> dict[str, object]:
    """Return the data of an event about an orphan."""
    return {
        "upstreamId": orphan.upstream_id,
        "name": orphan.name,
        "upstreamStatus": orphan.status,
        **({} if orphan.created_at is None else {"createdAt": iso(orphan.created_at)}),
    }


def _fresh_orphans(connection: Connection, seen: Sequence[Unmanaged]) -> list[Unmanaged]:
    """Return the orphans that are not recorded as orphans yet."""
    orphans = [one for one in seen if one.orphan]
    listed = account.listed_of(connection, [one.upstream_id for one in orphans])
    return [
        one
        for one in orphans
        if one.upstream_id in listed and listed[one.upstream_id].orphan_at is None
    ]


def _missing_records(connection: Connection, hold: Hold | None) -> list[MissingRecord]:
    if hold is None:
        return []
    found = instances.load_many(connection, hold.missing[:_LONGEST_LIST])
    return [MissingRecord(one.id, one.name, one.upstream_id) for one in found.values()]


def _is_younger(orphan: Unmanaged, newest: int | None, clock_offset: int | None) -> bool:
    """Return whether an orphan was made after our newest attempt; True if that is unknown."""
    if newest is None or orphan.created_at is None or clock_offset is None:
        return True
    return orphan.created_at > newest + clock_offset

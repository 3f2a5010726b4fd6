# SPDX-License-Identifier: Apache-2.0
"""Compare a listing with the records and attempts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from novitai.domain.account import AccountState, Census, counts_as_live
from novitai.domain.instance import GONE, InstanceStatus, Origin
from novitai.domain.marker import Marker, read_marker
from novitai.domain.operation import Attempt, was_there_before
from novitai.domain.product import Cluster
from novitai.domain.status import Observation, read_word
from novitai.lifecycle.reconcile import observed_columns
from novitai.store.queries.account import Unmanaged
from novitai.store.queries.instances import Former, Tracked
from novitai.upstream.models import Listing, UpstreamInstance

GONE_AFTER_LISTINGS: Final = 3
ABSENT_AFTER_LISTINGS: Final = 5
UNMARKED_LISTINGS: Final = 3
"""Complete listings of an instance without a marker before other evidence may confirm it."""
REAPPEARS_WITHIN: Final = 30 * 24 * 3_600_000
"""Milliseconds after the end of a record within which a listed instance counts as its own."""
SENT_SLACK: Final = 2_000
"""The error of our estimate of Novita's clock, which is known to the second, in milliseconds."""
ENDED_SLACK: Final = 5_000
"""Milliseconds after the end of a create call within which its instance may still be created."""
_GOING: Final = frozenset({Observation.REMOVING, Observation.REMOVED})


class Identity(Enum):
    """Whether the listed instance with a record's upstream ID belongs to that record."""

    CONFIRMED = auto()
    """It has the marker of one of the record's attempts, or all other evidence matches."""
    OTHER = auto()
    """It has another marker, or was listed before the attempt: it is a foreign instance."""
    OPEN = auto()
    """It has no marker, and there is not enough other evidence yet."""


@dataclass(frozen=True, slots=True)
class Known:
    """The rows of the database that a listing is compared with.

    Attributes:
        tracked: The live records that have an upstream ID.
        attempts: The attempts whose markers are in the listing, by attempt ID.
        unsettled: The attempts whose outcome is unknown.
        replied: The attempt whose answer gave an unconfirmed record its ID, by instance ID.
        former: The records that have ended or whose instance was proven gone, by upstream ID.
        first_listed: When an upstream ID was first listed, if it was listed before.
        deleting: The IDs of records with an accepted delete call.
        account: The stored state of the account.
    """

    tracked: Sequence[Tracked]
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    unsettled: Sequence[Attempt] = ()
    replied: Mapping[str, Attempt] = field(default_factory=dict)
    former: Mapping[str, Former] = field(default_factory=dict)
    first_listed: Mapping[str, int] = field(default_factory=dict)
    deleting: Collection[str] = ()
    account: AccountState = field(default_factory=AccountState)


@dataclass(frozen=True, slots=True)
class Changed:
    """A record that the listing changes. `confirms`: the listing also confirms its identity."""

    instance_id: str
    row: UpstreamInstance
    digest: str
    confirms: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """A record whose instance is not in the listing.

    Attributes:
        since: Since when it has been absent from complete listings, in Unix milliseconds.
        count: From how many complete listings it has been absent.
        unlisted_since: As `since`, for listings read to the end, complete or not.
        unlisted_count: As `count`, for the same listings.
        ever_seen: Whether any listing has shown it.
    """

    instance_id: str
    upstream_id: str
    since: int | None
    count: int
    unlisted_since: int = 0
    unlisted_count: int = 0
    ever_seen: bool = True

    def worth_a_look(self, began_at: int, absent_after: float, gone_after: int) -> bool:
        """Return whether it has been missing long enough for a look-up.

        A new instance may not be listed yet. If it was never listed, it must be missing for at
        least `absent_after` seconds, as an attempt.
        """
        if self.since is None:
            return False
        long = gone_after if self.ever_seen else max(gone_after, absent_after * 1000)
        return self.count >= GONE_AFTER_LISTINGS and began_at - self.since >= long


@dataclass(frozen=True, slots=True)
class Sighting:
    """A listed instance that has the marker of one of our attempts.

    Attributes:
        attempt: The attempt.
        row: The instance.
        preferred: Whether it is the only one with that marker, or the one chosen among several.
        contested: Whether it must not be assigned: none among several could be chosen, or it was
            listed before the attempt began, so it was renamed later.
    """

    attempt: Attempt
    row: UpstreamInstance
    preferred: bool = True
    contested: bool = False


@dataclass(frozen=True, slots=True)
class Reappeared:
    """A record that has ended, or whose instance was proven gone, and its listed instance."""

    record: Former
    row: UpstreamInstance


@dataclass(frozen=True, slots=True)
class Unseen:
    """An unsettled attempt that is not in the listing. `complete`: the listing was complete."""

    attempt: Attempt
    since: int
    count: int
    complete: bool = True

    def is_absent(self, began_at: int, absent_after: float) -> bool:
        """Return whether it was unseen often and long enough to prove that nothing was bought."""
        return self.count >= ABSENT_AFTER_LISTINGS and began_at - self.since >= absent_after * 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """The differences between a listing and the database.

    Attributes:
        changed: Records to update.
        missing: Records whose instance is not listed.
        sightings: Instances with the marker of an attempt that belong to no live record.
        reappeared: Instances of records that have ended, or that were proven gone.
        unseen: Unsettled attempts that are not listed.
        unmanaged: Instances of no record, including orphans.
        doubted: Records whose upstream ID belongs to a foreign instance.
        unmarked: Records whose instance has no marker, so that they are not confirmed yet.
        census: The comparison of the live records; None if the listing was not complete.
    """

    changed: tuple[Changed, ...] = ()
    missing: tuple[Missing, ...] = ()
    sightings: tuple[Sighting, ...] = ()
    reappeared: tuple[Reappeared, ...] = ()
    unseen: tuple[Unseen, ...] = ()
    unmanaged: tuple[Unmanaged, ...] = ()
    doubted: tuple[Tracked, ...] = ()
    unmarked: tuple[Tracked, ...] = ()
    census: Census | None = None


class Markers:
    """The markers in a listing, parsed once from the raw names."""

    def __init__(self, listing: Listing, installations: Collection[str]) -> None:
        """Parse the names; `installations` are the installation IDs that are ours."""
        self.all = {row.id: read_marker(row.name) for row in listing.instances}
        self._installations = installations

    def attempt_of(self, upstream_id: str) -> str | None:
        """Return the attempt ID in an instance's marker; None if it has no marker of ours."""
        marker = self.all.get(upstream_id)
        return marker.attempt_id if marker is not None and self.is_ours(marker) else None

    def is_ours(self, marker: Marker) -> bool:
        """Return whether a marker is of this installation."""
        return marker.installation_id in self._installations


def compare(listing: Listing, markers: Markers, known: Known, timeout: float) -> Difference:
    """Compare a listing with the database.

    Args:
        listing: The listing.
        markers: The markers in it.
        known: The rows of the database.
        timeout: The timeout of a call in seconds. A call may end this long after its `send_by`.
    """
    by_id = {row.id: row for row in listing.instances}
    changed: list[Changed] = []
    missing: list[Missing] = []
    doubted: list[Tracked] = []
    unmarked: list[Tracked] = []
    own: set[str] = set()
    for ours in known.tracked:
        seen = by_id.get(ours.upstream_id)
        if ours.confirmed_at is not None:
            own.add(ours.upstream_id)
        if listing.began_at <= max(ours.obs_at or 0, ours.acted_at or 0):
            own.add(ours.upstream_id)
            continue
        if seen is None:
            if listing.whole:
                missing.append(_missing(ours, listing))
            continue
        identity = identify(ours, seen, markers, known)
        if identity is Identity.OTHER:
            doubted.append(ours)
            continue
        own.add(ours.upstream_id)
        if identity is Identity.OPEN:
            unmarked.append(ours)
            continue
        row_digest = observed_columns.digest(seen)
        confirms = ours.confirmed_at is None
        if row_digest != ours.digest or ours.missing_count or ours.unlisted_count or confirms:
            changed.append(Changed(ours.id, seen, row_digest, confirms))
    strangers = [
        row
        for row in listing.instances
        if row.id not in own and read_word(row.status) not in _GOING
    ]
    sightings, reappeared, unmanaged = _sort_out(strangers, markers, known, listing.began_at)
    return Difference(
        tuple(changed),
        tuple(missing),
        tuple(sightings),
        tuple(reappeared),
        tuple(_unseen(listing, markers, known, timeout)),
        tuple(unmanaged),
        tuple(doubted),
        tuple(unmarked),
        _census(listing, known, by_id) if listing.complete else None,
    )


def identify(ours: Tracked, row: UpstreamInstance, markers: Markers, known: Known) -> Identity:
    """Return whether the listed instance with a record's upstream ID belongs to that record.

    The answer to a create call alone does not prove it. The marker decides; if there is none, then
    after three complete listings product, GPU number and image must match the attempt.
    """
    if ours.origin is Origin.ADOPTED:
        # No attempt made it, so the upstream ID and the creation time are the only evidence.
        if ours.upstream_created_at is None or row.created_at is None:
            return Identity.CONFIRMED if ours.confirmed_at is not None else Identity.OPEN
        same = ours.upstream_created_at == row.created_at
        return Identity.CONFIRMED if same else Identity.OPEN
    if ours.confirmed_at is not None:
        return Identity.CONFIRMED
    first_listed = known.first_listed.get(row.id)
    marker = markers.all.get(row.id)
    if marker is not None:
        attempt = known.attempts.get(marker.attempt_id) if markers.is_ours(marker) else None
        mine = attempt is not None and attempt.instance_id == ours.id
        if attempt is None or not mine or was_there_before(first_listed, attempt.created_at):
            return Identity.OTHER
        return Identity.CONFIRMED
    attempt = known.replied.get(ours.id)
    if attempt is None:
        return Identity.OPEN
    if was_there_before(first_listed, attempt.created_at):
        return Identity.OTHER
    agrees = (
        row.product_id == attempt.product_id
        and row.gpu_num == ours.gpu_num
        and bool(attempt.image)
        and row.image == attempt.image
    )
    return (
        Identity.CONFIRMED
        if agrees and ours.unmarked_count >= UNMARKED_LISTINGS
        else (Identity.OPEN)
    )


def made_by(attempt: Attempt, row: UpstreamInstance, gpu_num: int, timeout: float) -> bool:
    """Return whether an attempt's call made an instance, so it is not a copied or renamed one.

    By Novita's clock it must have been created between the sending and the end of the call, and
    product, GPU number and image must match. If a fact is unknown, the result is False.
    """
    if row.created_at is None or attempt.clock_offset is None:
        return False
    ended_at = attempt.ended_at
    if ended_at is None:
        ended_at = attempt.send_by + int(timeout * 1000)
    earliest = attempt.created_at + attempt.clock_offset - SENT_SLACK
    latest = ended_at + attempt.clock_offset + ENDED_SLACK
    return (
        earliest <= row.created_at <= latest
        and row.product_id == attempt.product_id
        and row.gpu_num == gpu_num
        and row.image == attempt.image
    )


def unmanaged_row(
    row: UpstreamInstance, marker: Marker | None, *, attempt_known: bool, orphan: bool
) -> Unmanaged:
    """Return the stored form of an instance that belongs to no record."""
    return Unmanaged(
        upstream_id=row.id,
        name=row.shown_name,
        status=row.status,
        marker=f"{marker.installation_id}{marker.attempt_id}" if marker else "",
        attempt_known=attempt_known,
        orphan=orphan,
        hourly_price=row.instance_price,
        created_at=row.created_at,
        region=Cluster(row.cluster_id, row.cluster_name).region,
        product_id=row.product_id,
        product_name=row.product_name,
        gpu_num=row.gpu_num,
        rootfs_size=row.rootfs_size,
        billing_mode=row.billing_mode[:16],
        cluster_id=row.cluster_id,
        image=row.image[:500],
    )


def _sort_out(
    strangers: Sequence[UpstreamInstance], markers: Markers, known: Known, began_at: int
) -> tuple[list[Sighting], list[Reappeared], list[Unmanaged]]:
    """Sort the instances of no live record into sightings, reappeared and unmanaged ones."""
    marked: dict[str, list[UpstreamInstance]] = {}
    reappeared: list[Reappeared] = []
    unmanaged: list[Unmanaged] = []
    for row in strangers:
        marker = markers.all[row.id]
        attempt_id = markers.attempt_of(row.id)
        attempt = known.attempts.get(attempt_id or "")
        record = known.former.get(row.id)
        if record is not None and record.status is InstanceStatus.RELEASED:
            unmanaged.append(unmanaged_row(row, marker, attempt_known=True, orphan=False))
        elif record is not None and _is_same(record, row, attempt, began_at):
            reappeared.append(Reappeared(record, row))
        elif attempt is not None:
            marked.setdefault(attempt.id, []).append(row)
        else:
            orphan = attempt_id is not None
            unmanaged.append(unmanaged_row(row, marker, attempt_known=False, orphan=orphan))
    sightings: list[Sighting] = []
    for attempt_id, rows in marked.items():
        attempt = known.attempts[attempt_id]
        known_before = {
            row.id
            for row in rows
            if was_there_before(known.first_listed.get(row.id), attempt.created_at)
        }
        possible = [row for row in rows if row.id not in known_before]
        first = _preferred(attempt, possible) if possible else None
        sightings += [Sighting(attempt, row, row is first, first is None) for row in possible]
        sightings += [
            Sighting(attempt, row, preferred=False, contested=True)
            for row in rows
            if row.id in known_before
        ]
    # The preferred ones first, so that they are assigned before the others are judged.
    sightings.sort(key=lambda sighting: not sighting.preferred)
    return sightings, reappeared, unmanaged


def _is_same(record: Former, row: UpstreamInstance, attempt: Attempt | None, began_at: int) -> bool:
    """Return whether a listed instance is the former instance of a record."""
    if record.status.ended and began_at - record.ended_at > REAPPEARS_WITHIN:
        return False
    if record.origin is Origin.CREATED and attempt is not None:
        return attempt.instance_id == record.id
    # Adopted, or its name no longer has the marker.
    return record.upstream_created_at is not None and record.upstream_created_at == row.created_at


def _preferred(attempt: Attempt, rows: Sequence[UpstreamInstance]) -> UpstreamInstance | None:
    """Choose among the instances with one marker; None if a person has to decide."""
    if len(rows) == 1:
        return rows[0]
    for row in rows:
        if row.id == attempt.upstream_id:
            return row
    times = [row.created_at for row in rows]
    earliest = min((at for at in times if at is not None), default=None)
    if None in times or times.count(earliest) > 1:
        return None
    return rows[times.index(earliest)]


def _census(listing: Listing, known: Known, by_id: Mapping[str, UpstreamInstance]) -> Census:
    account = known.account
    other_key = bool(account.keys) and listing.key_digest not in account.keys
    held = account.hold.missing if account.hold else ()
    live = {
        ours.id: ours.upstream_id
        for ours in known.tracked
        if counts_as_live(
            ours.status,
            ours.obs_status,
            seen=ours.obs_at is not None
            or ours.id in held
            or _bought_elsewhere(ours, listing, known),
            delete_accepted=ours.id in known.deleting,
            doubtful=other_key or ours.id in held,
        )
        and listing.began_at > max(ours.obs_at or 0, ours.acted_at or 0)
    }
    missing = frozenset(one for one, upstream_id in live.items() if upstream_id not in by_id)
    strange = _strange(listing, known, by_id)
    return Census(
        listing.began_at, listing.key_digest, strange.union(live), missing | strange, strange
    )


def _strange(
    listing: Listing, known: Known, by_id: Mapping[str, UpstreamInstance]
) -> frozenset[str]:
    """Return the records that may be missing only because they were bought with another key.

    A new instance may not be listed yet. An instance of another account is never listed with this
    key, so its absence must not end the record.
    """
    return frozenset(
        ours.id
        for ours in known.tracked
        if ours.obs_at is None
        and ours.upstream_id not in by_id
        and (attempt := known.replied.get(ours.id)) is not None
        and not known.account.same_account(attempt.key_digest, listing.key_digest)
        and counts_as_live(
            ours.status,
            ours.obs_status,
            seen=True,
            delete_accepted=ours.id in known.deleting,
        )
    )


def _bought_elsewhere(ours: Tracked, listing: Listing, known: Known) -> bool:
    """Return whether a record was bought with the key of another account than the listed one.

    Its absence from listings of this account proves nothing.
    """
    attempt = known.replied.get(ours.id)
    return attempt is not None and not known.account.same_account(
        attempt.key_digest, listing.key_digest
    )


def _missing(ours: Tracked, listing: Listing) -> Missing:
    """Count one more absence; absences from before our last call no longer count."""
    acted_at = ours.acted_at or 0
    since, count = ours.missing_since, ours.missing_count
    if since is not None and since <= acted_at:
        since, count = None, 0
    unlisted_since, unlisted = ours.unlisted_since, ours.unlisted_count
    if unlisted_since is not None and unlisted_since <= acted_at:
        unlisted_since, unlisted = None, 0
    if listing.complete:
        since, count = since or listing.began_at, count + 1
    return Missing(
        ours.id,
        ours.upstream_id,
        since,
        count,
        unlisted_since or listing.began_at,
        unlisted + 1,
        ours.obs_at is not None,
    )


def _unseen(listing: Listing, markers: Markers, known: Known, timeout: float) -> list[Unseen]:
    if not listing.whole:
        return []
    shown = _shown_attempts(listing, markers, known)
    found: list[Unseen] = []
    for attempt in known.unsettled:
        over_at = attempt.ended_at
        if over_at is None:
            over_at = attempt.send_by + int(timeout * 1000)
        if attempt.id in shown or listing.began_at <= over_at:
            continue
        if not known.account.same_account(attempt.key_digest, listing.key_digest):
            continue
        if _holds_a_nameless_newcomer(listing, known, attempt):
            continue
        # The time counts from the end of the call, not from the first listing after it.
        since = attempt.unseen_since or over_at
        found.append(Unseen(attempt, since, attempt.unseen_count + 1, listing.complete))
    return found


def _shown_attempts(listing: Listing, markers: Markers, known: Known) -> set[str]:
    """Return the attempts whose markers are on instances that they may have made."""
    shown: set[str] = set()
    for row in listing.instances:
        attempt_id = markers.attempt_of(row.id)
        attempt = known.attempts.get(attempt_id or "")
        first_listed = known.first_listed.get(row.id)
        if attempt_id is not None and not (
            attempt is not None and was_there_before(first_listed, attempt.created_at)
        ):
            shown.add(attempt_id)
    return shown


def _holds_a_nameless_newcomer(listing: Listing, known: Known, attempt: Attempt) -> bool:
    """Return whether an instance without a readable name may be the one this attempt bought."""
    own = {ours.upstream_id for ours in known.tracked}
    return any(
        not row.name_readable
        and row.id not in own
        and known.first_listed.get(row.id, listing.began_at) >= attempt.created_at
        for row in listing.instances
    )


def was_by_absence(record: Former) -> bool:
    """Return whether only the absence of its instance ended a record, or proved it gone."""
    return record.error_code == GONE or not record.status.ended

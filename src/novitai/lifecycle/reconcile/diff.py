# SPDX-License-Identifier: Apache-2.0
"""What a listing changes: our rows and attempts against what was seen. Pure, and in bulk."""

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
from novitai.store.queries.instances import Ended, Tracked
from novitai.upstream.models import Listing, UpstreamInstance

GONE_AFTER_LISTINGS: Final = 3
ABSENT_AFTER_LISTINGS: Final = 5
UNMARKED_LISTINGS: Final = 3
"""Complete listings of a row without a marker after which other evidence may identify it."""
REAPPEARS_WITHIN: Final = 30 * 24 * 3_600_000
"""Milliseconds after its end in which a record comes back when its instance is seen again."""
SENT_SLACK: Final = 2_000
"""Milliseconds by which upstream's clock, known to the second, may be misjudged."""
ENDED_SLACK: Final = 5_000
"""Milliseconds after the end of a request in which what it made may still come into being."""
_GOING: Final = frozenset({Observation.REMOVING, Observation.REMOVED})


class Identity(Enum):
    """Whether the row with a record's upstream id is that record's own."""

    CONFIRMED = auto()
    """It bears the marker of one of the record's attempts, or all other evidence agrees."""
    OTHER = auto()
    """It bears another marker, or was there before the attempt: the reply named a stranger."""
    OPEN = auto()
    """It bears no marker, and the other evidence is missing so far."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the database knows that a listing is compared with.

    Attributes:
        tracked: Our live rows that have an upstream id.
        attempts: The attempts whose markers the listing shows, by attempt id.
        unsettled: Attempts of which it is not known if they bought something.
        replied: The attempt whose reply gave an unconfirmed record its id, by instance id.
        ended: Records that are over, by the upstream id they held.
        first_listed: When an upstream id was first listed, where it was before.
        deleting: The ids of records with an accepted delete call.
        account: What is remembered of the account.
    """

    tracked: Sequence[Tracked]
    attempts: Mapping[str, Attempt] = field(default_factory=dict)
    unsettled: Sequence[Attempt] = ()
    replied: Mapping[str, Attempt] = field(default_factory=dict)
    ended: Mapping[str, Ended] = field(default_factory=dict)
    first_listed: Mapping[str, int] = field(default_factory=dict)
    deleting: Collection[str] = ()
    account: AccountState = field(default_factory=AccountState)


@dataclass(frozen=True, slots=True)
class Changed:
    """A row of ours of which the listing says something new; `confirms` its identity, if set."""

    instance_id: str
    row: UpstreamInstance
    digest: str
    confirms: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    """A row of ours that a listing did not hold.

    In complete listings for the `count`-th time `since` then; in listings that were read whole,
    complete or not, for the `unlisted_count`-th time in a row `unlisted_since` then.
    """

    instance_id: str
    upstream_id: str
    since: int | None
    count: int
    unlisted_since: int = 0
    unlisted_count: int = 0
    ever_seen: bool = True

    def worth_a_look(self, began_at: int, absent_after: float, gone_after: int) -> bool:
        """Whether it has been missing long enough to ask for it by id.

        What no listing has ever held may only not be listed yet: it takes the time after which
        an attempt counts as absent.
        """
        if self.since is None:
            return False
        long = gone_after if self.ever_seen else max(gone_after, absent_after * 1000)
        return self.count >= GONE_AFTER_LISTINGS and began_at - self.since >= long


@dataclass(frozen=True, slots=True)
class Sighting:
    """An instance upstream that bears the marker of one of our attempts.

    Attributes:
        attempt: The attempt.
        row: The instance.
        preferred: Whether it is the only one with that marker, or the one to choose of several.
        contested: Whether it must not be adopted: there are several and nothing tells which to
            choose, or it was there before the attempt began and has been renamed since.
    """

    attempt: Attempt
    row: UpstreamInstance
    preferred: bool = True
    contested: bool = False


@dataclass(frozen=True, slots=True)
class Reappeared:
    """An ended record whose instance is listed again."""

    record: Ended
    row: UpstreamInstance


@dataclass(frozen=True, slots=True)
class Unseen:
    """An unsettled attempt that a listing did not hold; `complete` tells what kind of listing."""

    attempt: Attempt
    since: int
    count: int
    complete: bool = True

    def is_absent(self, began_at: int, absent_after: float) -> bool:
        """Whether it has been unseen often and long enough to say that nothing was bought."""
        return self.count >= ABSENT_AFTER_LISTINGS and began_at - self.since >= absent_after * 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """All that a listing changes.

    Attributes:
        changed: Rows of ours that are to be written.
        missing: Rows of ours that were not listed.
        sightings: Rows with the marker of an attempt that are not a live record's own.
        reappeared: Rows that were the own of a record that has ended.
        unseen: Unsettled attempts that were not listed.
        unmanaged: Rows that are no record's own, orphans among them.
        doubted: Records whose reply named somebody else's instance.
        unmarked: Records whose row bears no marker, so far.
        census: What became of the live records; None where the listing was not complete.
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
    """The markers of this installation that a listing shows, read once from the raw names."""

    def __init__(self, listing: Listing, installations: Collection[str]) -> None:
        """Read the names; `installations` are the ids whose markers are ours."""
        self.all = {row.id: read_marker(row.name) for row in listing.instances}
        self._installations = installations

    def attempt_of(self, upstream_id: str) -> str | None:
        """Return the attempt id in the marker of a row, if the marker is ours."""
        marker = self.all.get(upstream_id)
        return marker.attempt_id if marker is not None and self.is_ours(marker) else None

    def is_ours(self, marker: Marker) -> bool:
        """Whether a marker is one of this installation."""
        return marker.installation_id in self._installations

    def attempt_ids(self) -> list[str]:
        """List the attempt ids of all markers of ours."""
        return [one.attempt_id for one in self.all.values() if one and self.is_ours(one)]


def compare(listing: Listing, markers: Markers, known: Known, timeout: float) -> Difference:
    """Compare a listing with what we know.

    Args:
        listing: What was seen.
        markers: The markers in it.
        known: What the database knows.
        timeout: Seconds a request may take: how long after `send_by` one may still have ended.
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
    """Tell whether the row with a record's upstream id is that record's own.

    A reply is one word of upstream. The marker in the row decides; without one, after three
    complete listings, everything else that is known of the attempt has to agree.
    """
    if ours.origin is Origin.ADOPTED:
        # It was never made by an attempt: upstream id and creation time are all there is.
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
    """Whether an instance was made by this attempt's call, and not copied or renamed since.

    Its creation time must lie between the sending of the call and the end of the request, on
    upstream's clock; product, GPUs and image must be the attempt's. What upstream does not tell
    proves nothing.
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
    """Show a row that is no record's own."""
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
    """Tell what the rows are that are no live record's own."""
    marked: dict[str, list[UpstreamInstance]] = {}
    reappeared: list[Reappeared] = []
    unmanaged: list[Unmanaged] = []
    for row in strangers:
        marker = markers.all[row.id]
        attempt_id = markers.attempt_of(row.id)
        attempt = known.attempts.get(attempt_id or "")
        record = known.ended.get(row.id)
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
    # The preferred ones first, so that the others find them adopted.
    sightings.sort(key=lambda sighting: not sighting.preferred)
    return sightings, reappeared, unmanaged


def _is_same(record: Ended, row: UpstreamInstance, attempt: Attempt | None, began_at: int) -> bool:
    """Whether a listed instance is the one that an ended record had, and not a stranger."""
    if began_at - record.ended_at > REAPPEARS_WITHIN:
        return False
    if record.origin is Origin.CREATED and attempt is not None:
        return attempt.instance_id == record.id
    # Adopted, or renamed since.
    return record.upstream_created_at is not None and record.upstream_created_at == row.created_at


def _preferred(attempt: Attempt, rows: Sequence[UpstreamInstance]) -> UpstreamInstance | None:
    """Choose among several rows with one marker; None where a person has to decide."""
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
    """Find the records that may only be missing because another key has bought them.

    What has just been bought may not be listed yet. But with the key of another account it never
    will be, and its absence must not end it.
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
    """Whether a record was bought with the key of another account than the one that was listed.

    No listing has shown it yet; that it is in none of this account's says nothing.
    """
    attempt = known.replied.get(ours.id)
    return attempt is not None and not known.account.same_account(
        attempt.key_digest, listing.key_digest
    )


def _missing(ours: Tracked, listing: Listing) -> Missing:
    """Count one more absence; those from before our last call do not count for after it."""
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
        # Counting begins at the end of the request, not at the first listing after it.
        since = attempt.unseen_since or over_at
        found.append(Unseen(attempt, since, attempt.unseen_count + 1, listing.complete))
    return found


def _shown_attempts(listing: Listing, markers: Markers, known: Known) -> set[str]:
    """List the attempts whose markers a listing shows, on instances that they may have made."""
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
    """Whether a row without a readable name may be what this attempt bought."""
    own = {ours.upstream_id for ours in known.tracked}
    return any(
        not row.name_readable
        and row.id not in own
        and known.first_listed.get(row.id, listing.began_at) >= attempt.created_at
        for row in listing.instances
    )


def was_by_absence(record: Ended) -> bool:
    """Whether a record was ended by absence alone."""
    return record.error_code == GONE

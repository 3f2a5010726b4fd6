# SPDX-License-Identifier: Apache-2.0
"""What a listing changes: our rows and attempts against what was seen. Pure, and in bulk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from novitai.domain.marker import read_marker
from novitai.domain.operation import Attempt
from novitai.domain.status import Observation, read_word
from novitai.lifecycle import observing
from novitai.store.coordination import Unmanaged
from novitai.store.instances import Tracked
from novitai.upstream.models import Listing, UpstreamInstance

GONE_AFTER_LISTINGS: Final = 3
GONE_AFTER: Final = 60_000
"""Milliseconds over which those listings must be spread before absence is worth a look-up."""
ABSENT_AFTER_LISTINGS: Final = 5
_GOING: Final = frozenset({Observation.REMOVING, Observation.REMOVED})


@dataclass(frozen=True, slots=True)
class Changed:
    """A row of ours of which the listing says something new."""

    instance_id: str
    row: UpstreamInstance
    digest: str


@dataclass(frozen=True, slots=True)
class Missing:
    """A row of ours that a complete listing did not hold: for the `count`-th time `since` then."""

    instance_id: str
    upstream_id: str
    since: int
    count: int
    ever_seen: bool = True

    def worth_a_look(self, began_at: int, absent_after: float) -> bool:
        """Whether it has been missing long enough to ask for it by id.

        What no listing has ever held may only not be listed yet: it takes the time after which
        an attempt counts as absent.
        """
        long = GONE_AFTER if self.ever_seen else max(GONE_AFTER, absent_after * 1000)
        return self.count >= GONE_AFTER_LISTINGS and began_at - self.since >= long


@dataclass(frozen=True, slots=True)
class Sighting:
    """An instance upstream that bears the marker of one of our attempts."""

    attempt: Attempt
    row: UpstreamInstance


@dataclass(frozen=True, slots=True)
class Unseen:
    """An unsettled attempt that a complete listing did not hold."""

    attempt: Attempt
    since: int
    count: int

    def is_absent(self, began_at: int, absent_after: float) -> bool:
        """Whether it has been unseen often and long enough to say that nothing was bought."""
        return self.count >= ABSENT_AFTER_LISTINGS and began_at - self.since >= absent_after * 1000


@dataclass(frozen=True, slots=True)
class Difference:
    """All that a listing changes."""

    changed: tuple[Changed, ...]
    missing: tuple[Missing, ...]
    sightings: tuple[Sighting, ...]
    unseen: tuple[Unseen, ...]
    unmanaged: tuple[Unmanaged, ...]


def marked_ids(
    listing: Listing, tracked: Sequence[Tracked], installation_id: str
) -> dict[str, UpstreamInstance]:
    """Find the rows that bear our marker and are not an instance's own, by attempt id.

    Of two rows with one marker the later replaces the earlier here; each is met in its turn, as
    the one that is adopted drops out.
    """
    own = {row.upstream_id for row in tracked}
    found: dict[str, UpstreamInstance] = {}
    for row in listing.instances:
        if row.id in own or read_word(row.status) in _GOING:
            continue
        marker = read_marker(row.name)
        if marker is not None and marker.installation_id == installation_id:
            found[marker.attempt_id] = row
    return found


def compare(
    listing: Listing,
    tracked: Sequence[Tracked],
    marked: Mapping[str, UpstreamInstance],
    attempts: Mapping[str, Attempt],
    unsettled: Sequence[Attempt],
    timeout: float,
) -> Difference:
    """Compare a listing with what we know.

    Args:
        listing: What was seen.
        tracked: Our live rows.
        marked: Rows with our marker that are nobody's own, by attempt id.
        attempts: The attempts of those ids, where they exist.
        unsettled: Attempts of which it is not known if they bought something.
        timeout: Seconds a request may take: how long after `send_by` one may still have ended.
    """
    by_id = {row.id: row for row in listing.instances}
    changed: list[Changed] = []
    missing: list[Missing] = []
    for ours in tracked:
        if listing.began_at <= max(ours.obs_at or 0, ours.acted_at or 0):
            continue
        seen = by_id.get(ours.upstream_id)
        if seen is None:
            if listing.complete:
                missing.append(_missing(ours, listing.began_at))
            continue
        row_digest = observing.digest(seen)
        if row_digest != ours.digest or ours.missing_count:
            changed.append(Changed(ours.id, seen, row_digest))
    sightings = [
        Sighting(attempts[attempt_id], row)
        for attempt_id, row in marked.items()
        if attempt_id in attempts
    ]
    known = {ours.upstream_id for ours in tracked} | {one.row.id for one in sightings}
    unmanaged = [
        unmanaged_row(row)
        for row in listing.instances
        if row.id not in known and read_word(row.status) not in _GOING
    ]
    return Difference(
        tuple(changed),
        tuple(missing),
        tuple(sightings),
        tuple(_unseen(listing, marked, unsettled, timeout)),
        tuple(unmanaged),
    )


def unmanaged_row(row: UpstreamInstance) -> Unmanaged:
    """Show a row that is no record's own."""
    return Unmanaged(row.id, row.name[:255], row.status[:64])


def _missing(ours: Tracked, began_at: int) -> Missing:
    """Count one more absence; those from before our last call do not count for after it."""
    since, count = ours.missing_since, ours.missing_count
    if since is None or since <= (ours.acted_at or 0):
        since, count = began_at, 0
    return Missing(ours.id, ours.upstream_id, since, count + 1, ours.obs_at is not None)


def _unseen(
    listing: Listing,
    marked: Mapping[str, UpstreamInstance],
    unsettled: Sequence[Attempt],
    timeout: float,
) -> list[Unseen]:
    if not listing.complete:
        return []
    found: list[Unseen] = []
    for attempt in unsettled:
        over_at = attempt.ended_at
        if over_at is None:
            over_at = attempt.send_by + int(timeout * 1000)
        if attempt.id in marked or listing.began_at <= over_at:
            continue
        # Counting begins at the end of the request, not at the first listing after it.
        found.append(Unseen(attempt, attempt.unseen_since or over_at, attempt.unseen_count + 1))
    return found

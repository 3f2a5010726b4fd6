# SPDX-License-Identifier: Apache-2.0
"""The verb *create*: select an offer, buy exactly once, watch, probe.

    place ──bought──▶ watch ──running──▶ probe ──answers──▶ succeeded
      ▲ │ unknown                │
      │ ▼                        ├ exit, statusError, deadline ──▶ failed, then reap
    settle                       ▼

Novita has no idempotency key (upstream.md §1). So the attempt is committed before its create
call is sent, the call is sent once, and a call with an ambiguous outcome is settled by a listing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import ClassVar, Final

from sqlalchemy import Connection

from novitai.crash_points import CrashPoint, reach
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, LaunchSpec
from novitai.domain.marker import Marker, upstream_name, upstream_stem, without_marker
from novitai.domain.operation import Attempt, AttemptState, Operation, OperationKind
from novitai.domain.placement import Candidate, Placement, Wish
from novitai.domain.product import is_any_region
from novitai.domain.progress import Progress
from novitai.domain.status import Observation, read_word
from novitai.errors import Conflict, NovitaiError, ValidationFailed
from novitai.lifecycle.catalogue.catalogue import Catalogue
from novitai.lifecycle.core import Core
from novitai.lifecycle.money import admission
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.failure_policy import FailurePolicy
from novitai.lifecycle.operations.goals import (
    LOOK_ANYWAY,
    LOOK_SOON,
    READINESS_DEADLINE,
    GiveUp,
    incomplete_error,
    last_detour,
)
from novitai.lifecycle.operations.startup import PROBE, WATCH, StartupWatcher
from novitai.lifecycle.operations.steps import (
    IDENTITY_UNCONFIRMED,
    LEASE_MS,
    Again,
    Announcement,
    Claimed,
    Done,
    Step,
)
from novitai.store.engine.errors import StoreError
from novitai.store.queries import account, attempts, instances, operations, quotes
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient
from novitai.upstream.refusals import Remedy, remedy
from novitai.upstream.window import SendWindow

MAX_ATTEMPTS: Final = 5
"""The most attempts that may have bought something; refused and unsent ones do not count."""
SEND_WITHIN: Final = 10_000
"""Milliseconds after the commit of an attempt within which its call must be sent."""
_LONGEST_ROUND_PAUSE: Final = 60_000
_LIST_AGE: Final = 1.0
"""Seconds: the maximum age of the offers used for ranking. The offers of the chosen cluster are
always reloaded before the purchase."""
_WAITING_LIST_AGE: Final = 10.0
"""The same while waiting for stock, so that hundreds of waiting operations share the lists."""
_LONGEST_EXPLANATION: Final = 1_000
_RECORD_AGAIN_AFTER: Final = (0.1, 0.5, 2.0)
"""Pauses in seconds between tries to store the outcome of an attempt."""


class Outpaced(NovitaiError):
    """The rows have changed since the claim, so this step must not buy."""


class CreatePhase(StrEnum):
    """The phases of a create."""

    PLACE = "place"
    SETTLE = "settle"
    WATCH = WATCH
    PROBE = PROBE


class CreateVerb:
    """Runs the steps of a create."""

    kind = OperationKind.CREATE
    first_phase: ClassVar[str] = CreatePhase.PLACE

    def __init__(
        self,
        core: Core,
        client: NovitaClient,
        catalogue: Catalogue,
        startup: StartupWatcher,
        failure: FailurePolicy,
        *,
        installation_id: str,
        capacity_wait: float,
    ) -> None:
        """Set the dependencies; `capacity_wait` is the time to wait for capacity, in seconds."""
        self._database = core.database
        self._client = client
        self._catalogue = catalogue
        self._startup = startup
        self._vault = core.vault
        self._clock = core.clock
        self._ids = core.ids
        self._failure = failure
        self._installation_id = installation_id
        self._capacity_wait = int(capacity_wait * 1000)

    async def step(self, claimed: Claimed) -> Step:
        """Run one step of the operation's phase."""
        if claimed.instance.upstream_id is None:
            return await self._place(claimed)
        if claimed.instance.unconfirmed and not claimed.instance.observed.gone:
            return self._wait_for_identity(claimed)
        return await self._watch(claimed)

    def _wait_for_identity(self, claimed: Claimed) -> Again:
        """Wait until a listing confirms that the answered ID belongs to this record."""
        now = self._clock.now()
        bought_at = claimed.instance.bought_at or now
        error = None
        if now - bought_at >= READINESS_DEADLINE:
            message = "It is not confirmed that the upstream instance belongs to this record"
            error = (IDENTITY_UNCONFIRMED, message)
        return Again(CreatePhase.WATCH, now + LOOK_ANYWAY, error=error)

    async def _place(self, claimed: Claimed) -> Step:
        now = self._clock.now()
        for attempt in claimed.attempts:
            if attempt.state is AttemptState.BOUGHT:
                return self._adopt(claimed, attempt)
        if any(not attempt.state.settled for attempt in claimed.attempts):
            return _settling(claimed, now)
        hopeless = next((a for a in _refused(claimed) if remedy(a.reason) is Remedy.NOTHING), None)
        if hopeless is not None:
            return self._not_bought(claimed, ("UPSTREAM_REFUSED", _explained(hopeless)))
        deadline = claimed.operation.deadline_at
        if deadline is not None and now >= deadline:
            if not claimed.is_late(deadline, now):
                return _looking_first(claimed, now)
            return self._not_bought(claimed)
        orphan = await self._database.read(partial(_orphan_of, claimed=claimed))
        if orphan is not None:
            message = (
                f"The account contains {orphan}, which has this record's name but is not in this "
                "database: adopt it, dismiss it or delete it"
            )
            return Again(
                CreatePhase.PLACE,
                now + LOOK_ANYWAY,
                error=("ORPHAN_FOUND", message),
            )
        if sum(attempt.state.may_have_bought for attempt in claimed.attempts) >= MAX_ATTEMPTS:
            return self._not_bought(claimed)
        placement, candidate = await self._find(claimed)
        if candidate is None:
            return self._next_round(claimed, placement)
        return await self._buy(claimed, candidate)

    async def _find(self, claimed: Claimed) -> tuple[Placement, Candidate | None]:
        """Pick the next candidate by the current offers of its cluster.

        Ranking uses recent lists. The offers of the best candidate's cluster are then reloaded; if
        that changes the ranking, this repeats, at most once for each cluster.
        """
        wish = await self._wish(claimed.instance)
        if wish is None:
            return Placement((), ()), None
        began, age = self._clock.monotonic(), self._list_age(claimed)
        read_again: set[str] = set()
        while True:
            max_age = age + self._clock.monotonic() - began
            placement = await self._catalogue.placement(wish, max_age=max_age)
            candidate = _next_candidate(placement, claimed)
            if candidate is None or candidate.offer.cluster.id in read_again:
                return placement, candidate
            cluster = candidate.offer.cluster
            await self._catalogue.reread(cluster, wish.billing_mode, wish.gpu_num)
            read_again.add(cluster.id)

    def _list_age(self, claimed: Claimed) -> float:
        """Return the maximum age of the lists, in seconds.

        Once the wait is over, lists from before its end are not used.
        """
        now, since = self._clock.now(), claimed.progress.short_since
        if since is None:
            return _LIST_AGE
        over_for = now - min(since, now) - self._capacity_wait
        return _WAITING_LIST_AGE if over_for < 0 else min(_WAITING_LIST_AGE, over_for / 1000)

    async def _wish(self, instance: Instance) -> Wish | None:
        try:
            regions = await self._catalogue.allowed_regions(
                instance.region, fallback=instance.region_fallback
            )
        except ValidationFailed:
            return None  # the region was closed in the meantime
        quote_id, quoted, inherited = instance.quote_id, None, instance.inherited
        if quote_id is not None:
            quote = await self._database.read(lambda connection: quotes.load(connection, quote_id))
            quoted = () if quote is None else quote.offers
        return Wish(
            product_name=instance.product_name,
            billing_mode=instance.billing_mode,
            gpu_num=instance.gpu_num,
            rootfs_size=instance.rootfs_size,
            regions=regions,
            max_hourly_price=instance.max_hourly_price,
            key_max_hourly_price=inherited.max_hourly_price if inherited else None,
            any_region=is_any_region(instance.region),
            quoted=quoted,
        )

    async def _buy(self, claimed: Claimed, candidate: Candidate) -> Step:
        sealed = await self._database.read(
            lambda connection: instances.load_launch(connection, claimed.instance.id)
        )
        spec = launch_spec.unseal(self._vault, sealed)
        permit = await self._client.permit_create()
        try:
            attempt = self._attempt(claimed, candidate, spec)
            renewed = SendWindow.lasting(self._clock, LEASE_MS)
            reach(CrashPoint.ATTEMPT_COMMITTING)
            await self._database.write(
                lambda connection: self._commit_attempt(connection, claimed.operation, attempt)
            )
            reach(CrashPoint.ATTEMPT_COMMITTED)
            claimed.window.until = renewed.until
            claimed.window.until_boottime = renewed.until_boottime
            call = launch_spec.create_call(claimed.instance, spec, attempt)
            window = SendWindow(
                attempt.send_by,
                self._clock.boottime() + SEND_WITHIN / 1000,
                within=claimed.window,
            )
            upstream_id = await self._client.create(call, permit=permit, window=window)
        except upstream.UpstreamError as error:
            return await self._not_accepted(attempt, error)
        except Outpaced:
            return Again(CreatePhase.PLACE, self._clock.now())
        except Conflict as refusal:
            return self._not_bought(claimed, (refusal.code, refusal.message))
        except asyncio.CancelledError:
            await asyncio.shield(self._record(attempt, AttemptState.UNKNOWN))
            raise
        finally:
            permit.release()
        # Store the bought instance's ID even if this task is cancelled now.
        await asyncio.shield(self._record(attempt, AttemptState.BOUGHT, upstream_id=upstream_id))
        return self._adopt(claimed, attempt, upstream_id)

    def _attempt(self, claimed: Claimed, candidate: Candidate, spec: LaunchSpec) -> Attempt:
        now = self._clock.now()
        attempt_id = self._ids.attempt()
        marker = Marker(self._installation_id, attempt_id)
        return Attempt(
            id=attempt_id,
            operation_id=claimed.operation.id,
            instance_id=claimed.instance.id,
            upstream_name=upstream_name(claimed.instance.name, marker),
            product_id=candidate.offer.product_id,
            cluster_id=candidate.offer.cluster.id,
            region=candidate.offer.cluster.region,
            price=candidate.price,
            state=AttemptState.SENT,
            created_at=now,
            send_by=now + SEND_WITHIN,
            image=spec.image[:500],
            key_digest=self._client.key_digest,
            clock_offset=self._client.clock_offset,
        )

    @staticmethod
    def _commit_attempt(connection: Connection, operation: Operation, attempt: Attempt) -> None:
        """Store the attempt before its call is sent, if the claim still holds.

        Raises:
            Outpaced: it does not.
            Conflict: `BUDGET_EXCEEDED`, `KEY_LIMIT_EXCEEDED`: the budgets have changed, or the
                price has.
        """
        instance = instances.lock(connection, attempt.instance_id)
        operations.hold(
            connection,
            operation,
            attempts=operation.attempts + 1,
            lease_until=attempt.created_at + LEASE_MS,
        )
        if instance is None or instance.upstream_id is not None:
            raise Outpaced  # a person assigned an instance while the step ran
        if account.load_state(connection).blocked:
            raise Outpaced  # a hold began while the step ran
        wanted = admission.wanted_at(instance, attempt.price * instance.gpu_num)
        admission.admit(connection, instance, wanted, attempt.created_at)
        attempts.insert(connection, attempt)

    async def _not_accepted(self, attempt: Attempt, error: upstream.UpstreamError) -> Step:
        """Record an attempt that bought nothing or whose outcome is unknown; return the step."""
        now = self._clock.now()
        if isinstance(error, upstream.Ambiguous):
            await self._record(attempt, AttemptState.UNKNOWN, error=error)
            return Again(CreatePhase.SETTLE, now + LOOK_ANYWAY, error=_shown(error))
        if isinstance(error, upstream.Refused | upstream.Gone):
            await self._record(attempt, AttemptState.REFUSED, error=error)
            refusal = Announcement(
                EventType.ATTEMPT_REFUSED,
                {
                    "attempt": {
                        "productId": attempt.product_id,
                        "region": attempt.region,
                        "reason": error.reason,
                        "message": error.message,
                    }
                },
            )
            return Again(CreatePhase.PLACE, now, error=_shown(error), announcements=(refusal,))
        # Nothing was bought: 429, key refused, breaker open, no connection. The candidate stays
        # eligible; the runner backs off.
        await self._record(attempt, AttemptState.NOT_SENT, error=error)
        raise error

    async def _record(
        self,
        attempt: Attempt,
        state: AttemptState,
        *,
        upstream_id: str | None = None,
        error: upstream.UpstreamError | None = None,
    ) -> None:
        """Store the outcome in the attempt's row, even if the lease has expired.

        It retries on database errors. If all tries fail, the attempt stays unknown and a listing
        settles it by its marker.
        """
        ended_at = self._clock.now()
        clock_offset = self._client.clock_offset

        def write(connection: Connection) -> None:
            attempts.record_result(
                connection,
                attempt.id,
                state,
                upstream_id=upstream_id,
                reason=error.reason if error else None,
                message=error.message if error else None,
                ended_at=ended_at,
                clock_offset=clock_offset,
            )

        reach(CrashPoint.ATTEMPT_RECORDING)
        for pause in _RECORD_AGAIN_AFTER:
            try:
                await self._database.write(write)
                break
            except StoreError:
                await self._clock.sleep(pause)
        else:
            await self._database.write(write)
        reach(CrashPoint.ATTEMPT_RECORDED)

    def _adopt(self, claimed: Claimed, attempt: Attempt, upstream_id: str | None = None) -> Again:
        """Assign the instance that an attempt bought to the record."""
        now = self._clock.now()
        changes: dict[str, object] = {
            "upstream_id": upstream_id or attempt.upstream_id,
            "product_id": attempt.product_id,
            "cluster_id": attempt.cluster_id,
            "region": attempt.region,
            "hourly_price": attempt.price * claimed.instance.gpu_num,
            "bought_at": now,
            "acted_at": now,
            "confirmed_at": None,
        }
        return Again(
            CreatePhase.WATCH,
            now + LOOK_ANYWAY,
            changes=changes,
            progress=Progress(),
            adopts=attempt.id,
        )

    def _next_round(self, claimed: Claimed, placement: Placement) -> Step:
        """Wait for stock: no offer fits now, or all that fit were refused in this round.

        The wait ends only after a round that began at or after its end, so that all candidates are
        tried once more after a downtime.
        """
        now, progress = self._clock.now(), claimed.progress
        refusals = _refused_in_round(claimed)
        lack = _lack(placement, refusals)
        if not _may_pass(placement, claimed):
            return self._not_bought(claimed, ("UPSTREAM_REFUSED", lack[1]))
        round_began_at = min((attempt.created_at for attempt in refusals), default=now)
        # If the clock was ahead earlier, the wait must not become longer.
        short_since = min(progress.short_since or round_began_at, now)
        ends_at = short_since + self._capacity_wait
        if round_began_at >= ends_at:
            return self._not_bought(claimed, lack)
        rounds = progress.rounds + 1
        pause = min(_LONGEST_ROUND_PAUSE, 1_000 * 2 ** min(rounds, 10))
        at = now + min(_LONGEST_ROUND_PAUSE, int(self._ids.jitter(pause)))
        return Again(
            CreatePhase.PLACE,
            max(now, min(at, ends_at)),
            progress=replace(
                progress,
                rounds=rounds,
                short_since=short_since,
                tried_before=len(claimed.attempts),
            ),
            error=lack,
        )

    def _not_bought(self, claimed: Claimed, error: tuple[str, str] | None = None) -> Done:
        code, said = (
            error or claimed.operation.error or ("UPSTREAM_UNAVAILABLE", "Novita did not answer")
        )
        return self._failure.end(claimed.instance, code, f"Nothing was bought: {said}")

    async def _watch(self, claimed: Claimed) -> Step:
        instance = claimed.instance
        trouble = _trouble_observed(instance)
        if trouble is not None:
            return self._failure.end(claimed.instance, *trouble)
        since = max(
            instance.bought_at or self._clock.now(),
            instance.confirmed_at or 0,
            last_detour(claimed.operation),
        )
        look = await self._startup.look(claimed, give_up_at=since + READINESS_DEADLINE)
        if isinstance(look, GiveUp):
            return self._failure.end(claimed.instance, "READINESS_TIMEOUT", look.message)
        if isinstance(look, Done):
            # Time estimates for later creates use `first_ready_at`.
            first = {"first_ready_at": look.changes["ready_at"]}
            return replace(look, changes={**look.changes, **first})
        return look


def _orphan_of(connection: Connection, claimed: Claimed) -> str | None:
    """Return an orphan that this record may have bought in a later state of the database.

    Its name is the record's, its attempt ID is not in the database, it was first listed after the
    record was made, and no person has dismissed it.
    """
    instance = claimed.instance
    named = [
        one
        for one in account.orphans(connection)
        if not one.attempt_known and without_marker(one.name) == upstream_stem(instance.name)
    ]
    listed = account.listed_of(connection, [one.upstream_id for one in named])
    for one in named:
        known = listed.get(one.upstream_id)
        if known is None or known.dismissed_at is not None:
            continue
        if known.first_listed_at >= instance.created_at:
            return one.upstream_id
    return None


def _looking_first(claimed: Claimed, now: int) -> Again:
    """Wait for a listing that is newer than the deadline."""
    return Again(
        CreatePhase.PLACE,
        now + LOOK_SOON,
        error=claimed.operation.error,
    )


def _next_candidate(placement: Placement, claimed: Claimed) -> Candidate | None:
    """Return the first candidate that was neither refused in this round nor ruled out."""
    refused = {_key(attempt) for attempt in _refused_in_round(claimed)} | _ruled_out(claimed)
    return next((one for one in placement.candidates if one.key not in refused), None)


def _refused(claimed: Claimed) -> list[Attempt]:
    return [attempt for attempt in claimed.attempts if attempt.state is AttemptState.REFUSED]


def _refused_in_round(claimed: Claimed) -> list[Attempt]:
    """Return the attempts that were refused in this round."""
    before = claimed.progress.tried_before
    return [
        attempt for attempt in claimed.attempts[before:] if attempt.state is AttemptState.REFUSED
    ]


def _ruled_out(claimed: Claimed) -> set[tuple[str, str]]:
    """Return the candidates that were refused for a permanent reason."""
    return {
        _key(attempt)
        for attempt in _refused(claimed)
        if remedy(attempt.reason) is Remedy.OTHER_CANDIDATE
    }


def _key(attempt: Attempt) -> tuple[str, str]:
    return attempt.product_id, attempt.cluster_id


def _may_pass(placement: Placement, claimed: Claimed) -> bool:
    """Return whether waiting may help: not if every available offer is ruled out."""
    ruled_out = _ruled_out(claimed)
    return (
        not ruled_out
        or any(candidate.key not in ruled_out for candidate in placement.candidates)
        or any(rejection.reason.may_pass for rejection in placement.rejections)
    )


def _lack(placement: Placement, refusals: Sequence[Attempt]) -> tuple[str, str]:
    """Return the error that lists each refusal and each offer that does not fit."""
    said = [_explained(attempt) for attempt in refusals]
    said += [f"{one.message} ({one.reason.value})" for one in placement.rejections]
    # Many offers often have the same reason.
    told = "; ".join(dict.fromkeys(said))[:_LONGEST_EXPLANATION]
    return "NO_CAPACITY", told or "No product fits"


def _explained(attempt: Attempt) -> str:
    said = attempt.message or "Novita refused it"
    return f"{said} ({attempt.reason})" if attempt.reason else said


def _trouble_observed(instance: Instance) -> tuple[str, str] | None:
    observed = instance.observed
    if observed.error:
        return "INSTANCE_FAILED", f"Novita reports: {observed.error}"
    seen = read_word(observed.status)
    if seen is Observation.EXITED:
        return "INSTANCE_EXITED", "The instance exited before it was ready"
    if observed.gone or seen in {Observation.REMOVING, Observation.REMOVED}:
        return "INSTANCE_REMOVED", "The instance was removed at Novita before it was ready"
    return None


def _settling(claimed: Claimed, now: int) -> Again:
    """Wait for a listing to settle an attempt."""
    return Again(
        CreatePhase.SETTLE,
        now + LOOK_ANYWAY,
        error=incomplete_error(claimed) or claimed.operation.error,
    )


def _shown(error: upstream.UpstreamError) -> tuple[str, str]:
    if isinstance(error, upstream.Refused | upstream.Gone):
        hopeless = remedy(error.reason) is Remedy.NOTHING
        return "UPSTREAM_REFUSED" if hopeless else "NO_CAPACITY", str(error)
    return "UPSTREAM_UNAVAILABLE", str(error)

# SPDX-License-Identifier: Apache-2.0
"""Ownership: an engineer decides which upstream instances belong to records.

They can adopt an instance of the account, dismiss an orphan, release a record, and confirm that the
instances missing in a hold are gone. None of this calls Novita.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.domain.actor import Actor
from novitai.domain.event import EventType
from novitai.domain.instance import (
    BillingMode,
    Instance,
    InstanceStatus,
    LaunchSpec,
    Observed,
    Origin,
)
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.marker import without_marker
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.product import usd_or_none
from novitai.domain.requests import AdoptRequest
from novitai.domain.status import derive
from novitai.domain.view import view
from novitai.errors import Conflict, NotFound
from novitai.ids import INSTALLATION_ID_LENGTH
from novitai.lifecycle.account import Account, Overview
from novitai.lifecycle.commands.change_instance import change_tags
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.core import Core
from novitai.lifecycle.money import ledger
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.queries.ready_views import unknown
from novitai.store.queries import account, instances, operations
from novitai.store.queries.account import Listed, Unmanaged

_MAX_NAME: Final = 100
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_DEFAULT_NAME: Final = "adopted"


@dataclass(frozen=True, slots=True)
class UnmanagedShown:
    """An unmanaged instance of the account, and whether it was dismissed."""

    row: Unmanaged
    dismissed: bool


@dataclass(frozen=True, slots=True)
class Adopted:
    """A record that adopted an instance of the account, and its view."""

    instance_id: str
    view: InstanceDetails


class Ownership:
    """Carries out an engineer's decisions about ownership."""

    def __init__(
        self,
        core: Core,
        follow_ups: FollowUps,
        account: Account,
        installation_ids: Collection[str],
    ) -> None:
        """Set the dependencies; `installation_ids` are those in our markers."""
        self._database = core.database
        self._vault = core.vault
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder
        self._follow_ups = follow_ups
        self._account = account
        self._installation_ids = installation_ids

    async def unmanaged(self) -> list[UnmanagedShown]:
        """List the unmanaged instances of the last listing, ordered by upstream ID."""

        def load(connection: Connection) -> list[UnmanagedShown]:
            found = account.unmanaged(connection)
            listed = account.listed_of(connection, [one.upstream_id for one in found])
            return [UnmanagedShown(one, _is_dismissed(listed, one)) for one in found]

        # Sorted here: the sort order of databases depends on their collation.
        return sorted(await self._database.read(load), key=lambda one: one.row.upstream_id)

    async def overview(self) -> Overview:
        """Return the state of the account: its last listing and its hold."""
        return await self._database.read(self._account.overview)

    async def blocked(self) -> bool:
        """Whether the account is in a hold, in which no write call is sent."""
        state = await self._database.read(account.load_state)
        return state.blocked

    def confirm(self, digest: str | None, *, actor: Actor) -> Transaction[int]:
        """Confirm that the missing instances of `digest` are gone; the result is their number.

        Raises:
            Conflict: `NOTHING_TO_CONFIRM`.
        """
        return partial(self._account.confirm, digest=digest, actor=actor)

    def dismiss(self, upstream_id: str) -> Transaction[UnmanagedShown]:
        """Record that an instance of the account does not concern novitai.

        Raises:
            NotFound: `UPSTREAM_INSTANCE_NOT_FOUND`: the last listing held no such instance.
        """
        return partial(self._dismiss, upstream_id=upstream_id)

    def adopt(self, request: AdoptRequest, *, actor: Actor) -> Transaction[Adopted]:
        """Give an instance of the account to a record, which is made if none is named.

        Raises:
            NotFound: `UPSTREAM_INSTANCE_NOT_FOUND`, `INSTANCE_NOT_FOUND`.
            ValidationFailed: a waiting record would have too many tags.
            Conflict: `ALREADY_MANAGED`, `MANAGED_ELSEWHERE`, `INVALID_STATE`.
        """

        def act(connection: Connection) -> Adopted:
            instance = self._adopt(connection, request, actor)
            running = operations.running(connection, instance.id)
            return Adopted(instance.id, _view(connection, instance, running))

        return act

    def release(self, instance_id: str, *, actor: Actor) -> Transaction[InstanceDetails]:
        """Give up a record; its upstream instance is left as it is.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            Conflict: `OPERATION_IN_PROGRESS`, `INVALID_STATE`.
        """

        def act(connection: Connection) -> InstanceDetails:
            return _view(connection, self._release(connection, instance_id, actor), None)

        return act

    def _dismiss(self, connection: Connection, upstream_id: str) -> UnmanagedShown:
        row = account.find_unmanaged(connection, upstream_id)
        if row is None:
            raise _no_such_instance(upstream_id)
        account.mark_listed(connection, upstream_id, dismissed_at=self._clock.now())
        self._wake_waiting(connection)
        return UnmanagedShown(row, dismissed=True)

    def _adopt(self, connection: Connection, request: AdoptRequest, actor: Actor) -> Instance:
        owner = instances.owner_of(connection, request.upstream_id)
        if owner is not None:
            return self._decide(connection, owner, request, actor)
        row = account.find_unmanaged(connection, request.upstream_id)
        if row is None:
            raise _no_such_instance(request.upstream_id)
        if row.marker and row.marker[:INSTALLATION_ID_LENGTH] not in self._installation_ids:
            raise Conflict(
                f"Instance '{row.upstream_id}' has the marker of another novitai installation",
                code="MANAGED_ELSEWHERE",
            )
        if request.instance_id is None:
            adopted = self._make(connection, row, request, actor)
        else:
            adopted = self._give(connection, row, request, request.instance_id, actor)
        account.drop_unmanaged(connection, row.upstream_id)
        return adopted

    def _decide(
        self, connection: Connection, owner: str, request: AdoptRequest, actor: Actor
    ) -> Instance:
        """Confirm the identity of an instance whose upstream ID a record already holds."""
        instance = instances.lock(connection, owner)
        if instance is None or request.instance_id != owner or not instance.unconfirmed:
            raise Conflict(
                f"Instance '{request.upstream_id}' already belongs to '{owner}'",
                code="ALREADY_MANAGED",
                details={"instanceId": owner},
            )
        columns = {
            "confirmed_at": self._clock.now(),
            "origin": Origin.ADOPTED.value,
            "upstream_created_at": None,
        }
        instances.update_columns(connection, owner, columns)
        change_tags(connection, instance, request.tags, self._clock.now())
        return self._tell_adopted(connection, owner, actor)

    def _make(
        self, connection: Connection, row: Unmanaged, request: AdoptRequest, actor: Actor
    ) -> Instance:
        """Make a new record for an instance of the account."""
        now = self._clock.now()
        instance = Instance(
            id=self._ids.instance(now),
            name=request.name or _valid_name(row.name),
            status=InstanceStatus.STARTING,
            product_name=row.product_name or row.product_id or "unknown",
            template_id="",
            gpu_num=row.gpu_num or 1,
            rootfs_size=row.rootfs_size or 0,
            region=row.region or "unknown",
            billing_mode=_billing_mode(row.billing_mode),
            created_at=now,
            updated_at=now,
            hourly_price=usd_or_none(row.hourly_price),
            origin=Origin.ADOPTED,
            observed=Observed(status=row.status),
            tags=request.tags,
        )
        status = derive(instance, None)
        sealed = launch_spec.seal(self._vault, LaunchSpec(image=row.image))
        instances.insert(connection, replace(instance, status=status), sealed)
        instances.update_columns(connection, instance.id, self._owning(row, now))
        return self._tell_adopted(connection, instance.id, actor)

    def _give(
        self,
        connection: Connection,
        row: Unmanaged,
        request: AdoptRequest,
        instance_id: str,
        actor: Actor,
    ) -> Instance:
        """Give an instance of the account to a record whose create has none yet."""
        instance = instances.lock(connection, instance_id)
        if instance is None:
            raise unknown(instance_id)
        running = operations.running(connection, instance_id)
        waits = running is not None and running.kind is OperationKind.CREATE
        if not waits or (instance.upstream_id is not None and not instance.unconfirmed):
            raise Conflict(
                f"Instance '{instance_id}' is not waiting for a purchase",
                details={"status": instance.status.value},
            )
        instances.update_columns(connection, instance_id, self._owning(row, self._clock.now()))
        change_tags(connection, instance, request.tags, self._clock.now())
        return self._tell_adopted(connection, instance_id, actor)

    @staticmethod
    def _owning(row: Unmanaged, now: int) -> Mapping[str, object]:
        """Return the columns that make an upstream instance that of a record."""
        return {
            "origin": Origin.ADOPTED.value,
            "ever_ran": True,  # its disk may hold what somebody needs
            "upstream_id": row.upstream_id,
            "upstream_created_at": row.created_at,
            "confirmed_at": now,
            "bought_at": now,
            "product_id": row.product_id or None,
            "cluster_id": row.cluster_id or None,
            "hourly_price": row.hourly_price,
            "obs_status": row.status,
            **({"region": row.region} if row.region else {}),
        }

    def _tell_adopted(self, connection: Connection, instance_id: str, actor: Actor) -> Instance:
        recorder = self._recorder.by(actor)
        adopted = recorder.refresh_status(connection, instance_id)
        running = operations.running(connection, instance_id)
        recorder.append(connection, adopted, running, EventType.ADOPTED)
        if running is None:
            self._follow_ups.ensure(connection, adopted)
        else:
            operations.wake(connection, [running.id], now=self._clock.now())
            self._jobs.nudge(connection, running.kind.job, running.id)
        return adopted

    def _release(self, connection: Connection, instance_id: str, actor: Actor) -> Instance:
        instance = instances.lock(connection, instance_id)
        if instance is None:
            raise unknown(instance_id)
        if instance.status is InstanceStatus.RELEASED:
            return instance
        running = operations.running(connection, instance_id)
        if running is not None and not running.kind.gives_way:
            raise Conflict(
                f"Instance '{instance_id}' is busy: a {running.kind.value} is running",
                code="OPERATION_IN_PROGRESS",
                details={"operationId": running.id, "kind": running.kind.value},
            )
        if instance.status.ended:
            raise Conflict(
                f"Instance '{instance_id}' is {instance.status.value}: nothing to release",
                details={"status": instance.status.value},
            )
        now = self._clock.now()
        if running is not None:
            operations.cancel(connection, running, now=now)
        instances.update_columns(connection, instance_id, {"released_at": now, "updated_at": now})
        return self._recorder.by(actor).refresh_status(connection, instance_id)

    def _wake_waiting(self, connection: Connection) -> None:
        """Wake the operations that wait for an orphan to be adopted or dismissed."""
        waiting = operations.waiting_for(connection, "ORPHAN_FOUND")
        operations.wake(connection, [one.id for one in waiting], now=self._clock.now())
        for operation in waiting:
            self._jobs.nudge(connection, operation.kind.job, operation.id)


def _view(connection: Connection, instance: Instance, running: Operation | None) -> InstanceDetails:
    return view(instance, running, cost=ledger.costs_of(connection, [instance])[instance.id])


def _no_such_instance(upstream_id: str) -> NotFound:
    return NotFound(
        f"The last listing of the account has no unmanaged instance '{upstream_id[:64]}'",
        code="UPSTREAM_INSTANCE_NOT_FOUND",
    )


def _is_dismissed(listed: Mapping[str, Listed], row: Unmanaged) -> bool:
    known = listed.get(row.upstream_id)
    return known is not None and known.dismissed_at is not None


def _valid_name(upstream_name: str) -> str:
    """Turn an upstream name into a valid one, without the marker."""
    stem = _NOT_IN_A_NAME.sub("-", without_marker(upstream_name)).strip("-")
    return stem[:_MAX_NAME] or _DEFAULT_NAME


def _billing_mode(word: str) -> BillingMode:
    return BillingMode.SPOT if word == BillingMode.SPOT.value else BillingMode.ON_DEMAND

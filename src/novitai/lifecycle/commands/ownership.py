# SPDX-License-Identifier: Apache-2.0
"""Ownership: which upstream instances are records of ours, as a person decides it.

An instance of the account can be adopted, an orphan dismissed, a record released, and what a hold
says is missing confirmed as gone. None of this calls upstream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.domain.event import EventType
from novitai.domain.instance import (
    BillingMode,
    Instance,
    InstanceStatus,
    LaunchSpec,
    Observed,
    Origin,
)
from novitai.domain.marker import without_marker
from novitai.domain.operation import OperationKind
from novitai.domain.product import usd
from novitai.domain.requests import AdoptRequest
from novitai.domain.status import derive
from novitai.domain.view import View, view
from novitai.errors import Conflict, NotFound
from novitai.ids import INSTALLATION_ID_LENGTH
from novitai.lifecycle.account import Account, Overview
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.queries.details_cache import unknown
from novitai.store.queries import account, instances, operations
from novitai.store.queries.account import Listed, Unmanaged

_MAX_NAME: Final = 100
_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9_-]+")
_DEFAULT_NAME: Final = "adopted"


@dataclass(frozen=True, slots=True)
class UnmanagedShown:
    """An instance of the account that is no record's own, and what was decided about it."""

    row: Unmanaged
    dismissed: bool


@dataclass(frozen=True, slots=True)
class Adopted:
    """A record that was given an instance of the account, and its view."""

    instance_id: str
    view: View


class Ownership:
    """Carries out what a person decides about ownership."""

    def __init__(
        self,
        core: Core,
        follow_ups: FollowUps,
        account: Account,
        *,
        installation_id: str,
    ) -> None:
        self._database = core.database
        self._vault = core.vault
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder
        self._follow_ups = follow_ups
        self._account = account
        self._installation_id = installation_id

    async def unmanaged(self) -> list[UnmanagedShown]:
        """List what the last listing held that is no record's own, by upstream id."""

        def load(connection: Connection) -> list[UnmanagedShown]:
            found = account.unmanaged(connection)
            listed = account.listed_of(connection, [one.upstream_id for one in found])
            return [UnmanagedShown(one, _is_dismissed(listed, one)) for one in found]

        # Sorted here: databases differ in what comes first, and pages are compared by bytes.
        return sorted(await self._database.read(load), key=lambda one: one.row.upstream_id)

    async def overview(self) -> Overview:
        """Show what is known of the account, and what is held."""
        return await self._database.read(self._account.overview)

    async def blocked(self) -> bool:
        """Tell whether the account is held, so that no write call may leave."""
        state = await self._database.read(account.load_state)
        return state.blocked

    def confirm(self, digest: str | None) -> Transaction[int]:
        """Accept the missing set that `digest` names as gone; the result is their number.

        Raises:
            Conflict: `NOTHING_TO_CONFIRM`.
        """
        return partial(self._account.confirm, digest=digest)

    def dismiss(self, upstream_id: str) -> Transaction[UnmanagedShown]:
        """Remember that an instance of the account is no matter of ours.

        Raises:
            NotFound: `UPSTREAM_INSTANCE_NOT_FOUND`: the last listing held no such instance.
        """
        return partial(self._dismiss, upstream_id=upstream_id)

    def adopt(self, request: AdoptRequest) -> Transaction[Adopted]:
        """Make an instance of the account a record's own.

        Raises:
            NotFound: `UPSTREAM_INSTANCE_NOT_FOUND`, `INSTANCE_NOT_FOUND`.
            Conflict: `ALREADY_MANAGED`, `MANAGED_ELSEWHERE`, `INVALID_STATE`.
        """

        def act(connection: Connection) -> Adopted:
            instance = self._adopt(connection, request)
            running = operations.running(connection, instance.id)
            return Adopted(instance.id, view(instance, running))

        return act

    def release(self, instance_id: str) -> Transaction[View]:
        """Let go of a record's upstream instance, which goes on without us.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            Conflict: `OPERATION_IN_PROGRESS`, `INVALID_STATE`.
        """

        def act(connection: Connection) -> View:
            return view(self._release(connection, instance_id), None)

        return act

    def _dismiss(self, connection: Connection, upstream_id: str) -> UnmanagedShown:
        row = account.find_unmanaged(connection, upstream_id)
        if row is None:
            raise _no_such_instance(upstream_id)
        account.mark_listed(connection, upstream_id, dismissed_at=self._clock.now())
        self._wake_waiting(connection)
        return UnmanagedShown(row, dismissed=True)

    def _adopt(self, connection: Connection, request: AdoptRequest) -> Instance:
        owner = instances.owner_of(connection, request.upstream_id)
        if owner is not None:
            return self._decide(connection, owner, request)
        row = account.find_unmanaged(connection, request.upstream_id)
        if row is None:
            raise _no_such_instance(request.upstream_id)
        if row.marker and row.marker[:INSTALLATION_ID_LENGTH] != self._installation_id:
            raise Conflict(
                f"Instance '{row.upstream_id}' bears the marker of another novitai installation",
                code="MANAGED_ELSEWHERE",
            )
        if request.instance_id is None:
            adopted = self._make(connection, row, request.name)
        else:
            adopted = self._give(connection, row, request.instance_id)
        account.drop_unmanaged(connection, row.upstream_id)
        return adopted

    def _decide(self, connection: Connection, owner: str, request: AdoptRequest) -> Instance:
        """Confirm an identity that is open, where a record holds the id already."""
        instance = instances.lock(connection, owner)
        if instance is None or request.instance_id != owner or not instance.unconfirmed:
            raise Conflict(
                f"Instance '{request.upstream_id}' belongs to '{owner}' already",
                code="ALREADY_MANAGED",
                details={"instanceId": owner},
            )
        columns = {
            "confirmed_at": self._clock.now(),
            "origin": Origin.ADOPTED.value,
            "upstream_created_at": None,
        }
        instances.update_columns(connection, owner, columns)
        return self._tell_adopted(connection, owner)

    def _make(self, connection: Connection, row: Unmanaged, name: str | None) -> Instance:
        """Make a new record for an instance of the account."""
        now = self._clock.now()
        instance = Instance(
            id=self._ids.instance(now),
            name=name or _valid_name(row.name),
            status=InstanceStatus.STARTING,
            product_name=row.product_name or row.product_id or "unknown",
            template_id="",
            gpu_num=row.gpu_num or 1,
            rootfs_size=row.rootfs_size or 0,
            region=row.region or "unknown",
            billing_mode=_billing_mode(row.billing_mode),
            created_at=now,
            updated_at=now,
            hourly_price=None if row.hourly_price is None else usd(row.hourly_price),
            origin=Origin.ADOPTED,
            observed=Observed(status=row.status),
        )
        status = derive(instance, None)
        sealed = launch_spec.seal(self._vault, LaunchSpec(image=row.image))
        instances.insert(connection, replace(instance, status=status), sealed)
        instances.update_columns(connection, instance.id, self._owning(row, now))
        return self._tell_adopted(connection, instance.id)

    def _give(self, connection: Connection, row: Unmanaged, instance_id: str) -> Instance:
        """Give an instance of the account to a record that waits for one."""
        instance = instances.lock(connection, instance_id)
        if instance is None:
            raise unknown(instance_id)
        running = operations.running(connection, instance_id)
        waits = running is not None and running.kind is OperationKind.CREATE
        if not waits or (instance.upstream_id is not None and not instance.unconfirmed):
            raise Conflict(
                f"Instance '{instance_id}' does not wait to be bought",
                details={"status": instance.status.value},
            )
        instances.update_columns(connection, instance_id, self._owning(row, self._clock.now()))
        return self._tell_adopted(connection, instance_id)

    @staticmethod
    def _owning(row: Unmanaged, now: int) -> Mapping[str, object]:
        """Write that an upstream instance is a record's own, as columns."""
        return {
            "origin": Origin.ADOPTED.value,
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

    def _tell_adopted(self, connection: Connection, instance_id: str) -> Instance:
        adopted = self._recorder.refresh_status(connection, instance_id)
        running = operations.running(connection, instance_id)
        self._recorder.append(connection, adopted, running, EventType.ADOPTED)
        if running is None:
            self._follow_ups.ensure(connection, adopted)
        else:
            operations.wake(connection, [running.id], now=self._clock.now())
            self._jobs.nudge(connection, running.kind.job, running.id)
        return adopted

    def _release(self, connection: Connection, instance_id: str) -> Instance:
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
                f"Instance '{instance_id}' is {instance.status.value}: there is nothing to release",
                details={"status": instance.status.value},
            )
        now = self._clock.now()
        if running is not None:
            operations.cancel(connection, running, now=now)
        instances.update_columns(connection, instance_id, {"released_at": now, "updated_at": now})
        return self._recorder.refresh_status(connection, instance_id)

    def _wake_waiting(self, connection: Connection) -> None:
        """Have the records that wait for an orphan look again."""
        waiting = operations.waiting_for(connection, "ORPHAN_FOUND")
        operations.wake(connection, [one.id for one in waiting], now=self._clock.now())
        for operation in waiting:
            self._jobs.nudge(connection, operation.kind.job, operation.id)


def _no_such_instance(upstream_id: str) -> NotFound:
    return NotFound(
        f"The last listing of the account holds no unmanaged instance '{upstream_id[:64]}'",
        code="UPSTREAM_INSTANCE_NOT_FOUND",
    )


def _is_dismissed(listed: Mapping[str, Listed], row: Unmanaged) -> bool:
    known = listed.get(row.upstream_id)
    return known is not None and known.dismissed_at is not None


def _valid_name(upstream_name: str) -> str:
    """Make a valid name of upstream's, without the marker."""
    stem = _NOT_IN_A_NAME.sub("-", without_marker(upstream_name)).strip("-")
    return stem[:_MAX_NAME] or _DEFAULT_NAME


def _billing_mode(word: str) -> BillingMode:
    return BillingMode.SPOT if word == BillingMode.SPOT.value else BillingMode.ON_DEMAND

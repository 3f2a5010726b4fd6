# SPDX-License-Identifier: Apache-2.0
"""Instances: rent, create, read, change, wait, stop, delete."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final, Unpack

from novitai_client.errors import DeleteFailed, NovitaiError
from novitai_client.models.history import Event
from novitai_client.models.instances import (
    ActionResult,
    CreatedInstance,
    Credentials,
    Instance,
    StopAllResult,
    SyncStarted,
    UnmanagedInstance,
    Utilization,
)
from novitai_client.models.money import InstanceCost
from novitai_client.models.webhooks import Delivery
from novitai_client.requests import ChangeFields, CreateFields, Time
from novitai_client.resources.waiting import TIMEOUT, wait
from novitai_client.sending import Answer, new_key, read
from novitai_client.surface import ContextMethod, IteratorMethod, Method, Mode, Resource
from novitai_client.wire import body, path, query
from novitai_client.words import InstanceStatus

_PATH: Final = "/api/instances"
RUN_MINUTES: Final = 120
DELETE_SECONDS: Final = 300.0


class Instances(Resource[Mode]):
    """Instances. The methods that act take an ID, or the name of exactly one live instance."""

    @ContextMethod
    async def rent(
        self,
        *,
        max_run_minutes: int | None = RUN_MINUTES,
        ready_timeout: float = TIMEOUT,
        delete_timeout: float = DELETE_SECONDS,
        **fields: Unpack[CreateFields],
    ) -> AsyncGenerator[Instance, None]:
        """Create an instance, wait until it serves, and delete it when the block ends.

        It is deleted even if an exception, Ctrl-C or a cancelled task ends the block, the wait or
        the create. If this process is killed, the server deletes it: after `max_run_minutes` of
        running, or as long after it stopped.

        Args:
            max_run_minutes: The longest run. None sets no limit, so that an instance whose client
                was killed runs on. A value in `limits` goes before it.
            ready_timeout: Seconds until it must serve.
            delete_timeout: Seconds for the request to delete it.
            fields: The fields of `create`.

        Raises:
            WaitTimedOut: it did not serve in time.
            StatusOutOfReach: it failed; `instance.error` says why.
            DeleteFailed: it could not be deleted; `instance_id` names it.
            ApiError: the create was refused, and nothing was bought.

        Example:
            with client.instances.rent(
                name="ci", product_name="gpu-basic", template_id="tmpl-12345", max_run_minutes=30
            ) as gpu:
                print(gpu.connection_details.ssh)
        """
        if max_run_minutes is not None:
            fields["limits"] = {
                "max_run_minutes": max_run_minutes,
                "delete_after_stopped_minutes": max_run_minutes,
                "on_limit": "delete",
                **(fields.get("limits") or {}),
            }
        instance_id: str | None = None
        key = new_key()
        try:
            instance_id = (await self._create(fields, key)).instance_id
            yield await wait(self._api, instance_id, "running", ready_timeout, rented=True)
        except NovitaiError as error:
            if instance_id is not None:
                await self._end(instance_id, error, delete_timeout)
            raise
        except BaseException as error:  # an instance must not outlive the block, however it ends
            await self._end_unknown(fields, key, instance_id, error, delete_timeout)
            raise
        else:
            await self._end(instance_id, None, delete_timeout)

    async def _end_unknown(
        self,
        fields: CreateFields,
        key: str,
        instance_id: str | None,
        raised: BaseException,
        seconds: float,
    ) -> None:
        """Delete the instance; if its create was interrupted, send that again to learn its ID."""
        if instance_id is None and isinstance(raised, ValueError | TypeError):
            return  # the request could not even be encoded
        if instance_id is None:
            try:
                created = await self._api.transport.finish(self._create(fields, key))
            except BaseException as error:  # its ID is not known, but the key can settle it
                ended = raised if isinstance(error, NovitaiError) else error
                ended.add_note(
                    f"novitai: it is not known whether the instance {fields['name']!r} was created "
                    f"({error!r}); its idempotency key is {key}"
                )
                if ended is error:
                    raise
                return
            instance_id = created.instance_id
        await self._end(instance_id, raised, seconds)

    async def _end(self, instance_id: str, raised: BaseException | None, seconds: float) -> None:
        """Delete an instance.

        Raises:
            DeleteFailed: it was not deleted. An interrupt is not replaced; a note on it has the ID.
        """
        deadline = self._api.clock.monotonic() + seconds
        deleting = self._api.send(
            "DELETE", path("api", "instances", instance_id), deadline=deadline
        )
        told = f"instance {instance_id} was not deleted, and may be billed"
        try:
            await self._api.transport.finish(deleting)
        except NovitaiError as error:
            if raised is not None and not isinstance(raised, Exception):
                raised.add_note(f"novitai: {told}: {error}")
                return
            failed = DeleteFailed(f"{told}: {error}")
            failed.instance_id = instance_id
            failed.instance = raised.instance if isinstance(raised, NovitaiError) else None
            failed.raised = raised
            raise failed from error
        except BaseException as error:  # a second interrupt goes on; its note names the instance
            error.add_note(f"novitai: {told}")
            raise

    async def _create(self, fields: Mapping[str, Any], key: str | None) -> CreatedInstance:
        return await self._api.fetch(CreatedInstance, "POST", _PATH, content=body(fields), key=key)

    @Method
    async def create(
        self, *, idempotency_key: str | None = None, **fields: Unpack[CreateFields]
    ) -> CreatedInstance:
        """Create an instance, exactly once even if the connection breaks or the server restarts.

        Args:
            idempotency_key: A key of your own, so that also a later run of your program with the
                same key and fields gets this instance. By default each call has a new one.
            fields: The instance.

        Example:
            created = client.instances.create(
                name="trainer", product_name="gpu-basic", template_id="tmpl-12345", gpu_num=2
            )
            print(created.instance_id, created.estimated_ready_time)
        """
        return await self._create(fields, idempotency_key)

    @Method
    async def get(self, instance_id: str) -> Instance:
        """Read an instance.

        Example:
            print(client.instances.get("inst_1").status)
        """
        return _instance(await self._api.send("GET", path("api", "instances", instance_id)))

    @IteratorMethod
    async def list(
        self,
        *,
        status: InstanceStatus | None = None,
        region: str | None = None,
        name: str | None = None,
        tags: Mapping[str, str] | None = None,
        include_terminated: bool | None = None,
        limit: int | None = None,
    ) -> AsyncGenerator[Instance, None]:
        """Iterate over all instances, newest first; pages are read as they are needed.

        Args:
            status: Only this status.
            region: Only this region.
            name: Only this name.
            tags: Only instances with all these tags.
            include_terminated: Whether terminated and released instances are listed too.
            limit: Rows in one page.

        Example:
            for instance in client.instances.list(status="running", tags={"team": "vision"}):
                print(instance.name, instance.hourly_price)
        """
        wanted = query(
            limit=limit,
            status=status,
            include_terminated=include_terminated,
            region=region,
            name=name,
            tag=[f"{tag}:{value}" for tag, value in (tags or {}).items()],
        )
        async for one in self._api.pages(Instance, _PATH, "instances", wanted):
            yield one

    @Method
    async def wait(
        self,
        instance_id: str,
        status: InstanceStatus = "running",
        *,
        timeout: float = TIMEOUT,  # noqa: ASYNC109 - the deadline is the API's, and a surface blocks
    ) -> Instance:
        """Wait until an instance has a status. Restarts of the server are bridged.

        Args:
            instance_id: The instance.
            status: The status to wait for.
            timeout: Seconds until the wait is given up.

        Raises:
            WaitTimedOut: the time is over; the instance lives on.
            StatusOutOfReach: it failed, or has ended.
            NovitaiError: any other error; like those above, it has the `instance`.

        Example:
            instance = client.instances.wait("inst_1", timeout=600)
            print(instance.connection_details.ssh)
        """
        return await wait(self._api, instance_id, status, timeout)

    @Method
    async def start(
        self,
        instance_id: str | None = None,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> ActionResult:
        """Start a stopped instance. Its addresses and its price may change.

        Example:
            client.instances.start("inst_1")
        """
        return await self._act("start", instance_id, name, idempotency_key)

    @Method
    async def stop(
        self,
        instance_id: str | None = None,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> ActionResult:
        """Stop a running instance. Its disk is kept and billed.

        Example:
            client.instances.stop(name="trainer")
        """
        return await self._act("stop", instance_id, name, idempotency_key)

    @Method
    async def restart(
        self,
        instance_id: str | None = None,
        *,
        name: str | None = None,
        idempotency_key: str | None = None,
    ) -> ActionResult:
        """Restart a running instance.

        Example:
            client.instances.restart("inst_1")
        """
        return await self._act("restart", instance_id, name, idempotency_key)

    @Method
    async def delete(
        self,
        instance_id: str | None = None,
        *,
        name: str | None = None,
        confirm: bool | None = None,
        idempotency_key: str | None = None,
    ) -> ActionResult:
        """Delete an instance and its disk, also while it is being created.

        Args:
            instance_id: The instance.
            name: Its name, in place of the ID.
            confirm: Whether the call is sent even if the account is held; needs an ID.
            idempotency_key: A key of your own.

        Example:
            client.instances.delete("inst_1")
        """
        if instance_id is None or name is not None:
            if confirm is not None:
                raise ValueError("confirm= needs an ID")
            return await self._act("delete", instance_id, name, idempotency_key)
        answer = await self._api.send(
            "DELETE",
            path("api", "instances", instance_id),
            query=query(confirm=confirm),
            key=idempotency_key,
        )
        return _result(answer)

    async def _act(
        self, verb: str, instance_id: str | None, name: str | None, key: str | None
    ) -> ActionResult:
        if (instance_id is None) == (name is None):
            raise ValueError(f"{verb} needs an ID or a name")
        if instance_id is not None:
            place, content = path("api", "instances", instance_id, verb), None
        else:
            place, content = path("api", "instances", verb), body({"instance_name": name})
        return _result(await self._api.send("POST", place, content=content, key=key))

    @Method
    async def update(
        self, instance_id: str, *, if_match: str | None = None, **changes: Unpack[ChangeFields]
    ) -> Instance:
        """Change tags, limits, auto-stop, protection or webhook. None removes a value.

        It is not sent again after a lost connection, because it has no idempotency key.

        Args:
            instance_id: The instance.
            if_match: The `etag` of the instance as you read it: nothing is changed if it has
                changed since (`PreconditionFailed`).
            changes: The fields to change; others are kept.

        Example:
            client.instances.update("inst_1", tags={"team": "vision"}, limits={"max_spend": 20})
        """
        answer = await self._api.send(
            "PATCH",
            path("api", "instances", instance_id),
            content=body(changes, nulls=True),
            headers={
                "Content-Type": "application/merge-patch+json",
                **({} if if_match is None else {"If-Match": if_match}),
            },
        )
        return _instance(answer)

    @Method
    async def keep(
        self, instance_id: str, minutes: int, *, idempotency_key: str | None = None
    ) -> Instance:
        """Put off the stop by a run limit, `stop_at` or auto-stop; `stops_at` has the new time.

        Example:
            print(client.instances.keep("inst_1", 60).stops_at)
        """
        return await self._api.fetch(
            Instance,
            "POST",
            path("api", "instances", instance_id, "keep"),
            content=body({"minutes": minutes}),
            key=idempotency_key,
        )

    @Method
    async def set_last_used(self, instance_id: str, at: Time | None = None) -> Instance:
        """Say when the instance was last used, so that auto-stop counts from then; now if absent.

        Example:
            client.instances.set_last_used("inst_1")
        """
        return await self._api.fetch(
            Instance,
            "PUT",
            path("api", "instances", instance_id, "last-used"),
            content=body({"last_used_at": at}),
        )

    @Method
    async def credentials(self, instance_id: str) -> Credentials:
        """Read the passwords of an instance. They are left out of `repr`.

        Example:
            password = client.instances.credentials("inst_1").ssh_password
        """
        place = path("api", "instances", instance_id, "credentials")
        return await self._api.fetch(Credentials, "GET", place)

    @Method
    async def cost(self, instance_id: str) -> InstanceCost:
        """Read the costs of an instance and the spans that they are made of.

        Example:
            print(client.instances.cost("inst_1").accrued_at_most)
        """
        place = path("api", "instances", instance_id, "cost")
        return await self._api.fetch(InstanceCost, "GET", place)

    @Method
    async def utilization(
        self,
        instance_id: str,
        *,
        from_: Time | None = None,
        to: Time | None = None,
        interval: int | None = None,
    ) -> Utilization:
        """Read how busy an instance was.

        Args:
            instance_id: The instance.
            from_: By default, an hour before `to`.
            to: By default, now.
            interval: Seconds from one value to the next.

        Example:
            for value in client.instances.utilization("inst_1").gpu:
                print(value.at, value.percent)
        """
        return await self._api.fetch(
            Utilization,
            "GET",
            path("api", "instances", instance_id, "utilization"),
            query=query(from_=from_, to=to, interval=interval),
        )

    @IteratorMethod
    async def events(
        self, instance_id: str, *, limit: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """Iterate over the events of an instance, oldest first, even if it is terminated.

        Example:
            for event in client.instances.events("inst_1"):
                print(event.at, event.type)
        """
        place = path("api", "instances", instance_id, "events")
        async for one in self._api.pages(Event, place, "events", query(limit=limit)):
            yield one

    @IteratorMethod
    async def deliveries(
        self, instance_id: str, *, limit: int | None = None
    ) -> AsyncGenerator[Delivery, None]:
        """Iterate over the webhooks sent about an instance.

        Example:
            for delivery in client.instances.deliveries("inst_1"):
                print(delivery.type, delivery.status)
        """
        place = path("api", "instances", instance_id, "deliveries")
        async for one in self._api.pages(Delivery, place, "deliveries", query(limit=limit)):
            yield one

    @Method
    async def stop_all(self, *, idempotency_key: str | None = None) -> StopAllResult:
        """Stop all running instances.

        Example:
            for skipped in client.instances.stop_all().skipped:
                print(skipped.instance_id, skipped.reason)
        """
        return await self._api.fetch(
            StopAllResult, "POST", f"{_PATH}/stop-all", key=idempotency_key
        )

    @Method
    async def sync(self, *, idempotency_key: str | None = None) -> SyncStarted:
        """Have the account listed now.

        Example:
            client.operations.get(client.instances.sync().operation_id)
        """
        return await self._api.fetch(SyncStarted, "POST", f"{_PATH}/sync", key=idempotency_key)

    @IteratorMethod
    async def unmanaged(
        self, *, limit: int | None = None
    ) -> AsyncGenerator[UnmanagedInstance, None]:
        """Iterate over the instances of the account that belong to no record.

        Example:
            for instance in client.instances.unmanaged():
                print(instance.upstream_id, instance.hourly_price)
        """
        place = f"{_PATH}/unmanaged"
        async for one in self._api.pages(UnmanagedInstance, place, "instances", query(limit=limit)):
            yield one

    @Method
    async def adopt(
        self,
        upstream_id: str,
        *,
        name: str | None = None,
        instance_id: str | None = None,
        tags: Mapping[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Instance:
        """Manage an instance that was created at Novita.

        Args:
            upstream_id: Its ID at Novita.
            name: The name of the new record; by default derived from the name at Novita.
            instance_id: A record that waits to be bought; it gets the instance.
            tags: The tags of the record.
            idempotency_key: A key of your own.

        Example:
            instance = client.instances.adopt("3560b7fec915bbf9", name="trainer")
        """
        fields = {
            "upstream_id": upstream_id,
            "name": name,
            "instance_id": instance_id,
            "tags": tags,
        }
        return await self._api.fetch(
            Instance, "POST", f"{_PATH}/adopt", content=body(fields), key=idempotency_key
        )

    @Method
    async def release(self, instance_id: str, *, idempotency_key: str | None = None) -> Instance:
        """Stop managing an instance; it lives on at Novita.

        Example:
            client.instances.release("inst_1")
        """
        place = path("api", "instances", instance_id, "release")
        return await self._api.fetch(Instance, "POST", place, key=idempotency_key)

    @Method
    async def dismiss(
        self, upstream_id: str, *, idempotency_key: str | None = None
    ) -> UnmanagedInstance:
        """Remember that an orphan is known and no matter.

        Example:
            client.instances.dismiss("3560b7fec915bbf9")
        """
        place = path("api", "instances", "unmanaged", upstream_id, "dismiss")
        return await self._api.fetch(UnmanagedInstance, "POST", place, key=idempotency_key)


def _instance(answer: Answer) -> Instance:
    return read(Instance, answer).model_copy(update={"etag": answer.headers.get("ETag")})


def _result(answer: Answer) -> ActionResult:
    if answer.status == 202:
        return read(ActionResult, answer)
    instance = read(Instance, answer)
    return ActionResult(instance_id=instance.id, status=instance.status)

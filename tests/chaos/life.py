# SPDX-License-Identifier: Apache-2.0
"""One life of the model: prepare, let a request meet a fault and a crash, and come to rest."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import orjson
from sqlalchemy import Connection

from novitai.app import Application
from novitai.crash_points import CrashPoint
from novitai.domain.instance import InstanceStatus, LaunchSpec, Origin
from novitai.domain.limits import LimitSettings
from novitai.domain.operation import OperationKind
from novitai.domain.requests import AdoptRequest, CreateRequest
from novitai.emulator.instances import Status, phase
from novitai.errors import ApiError
from novitai.lifecycle.commands.idempotency import Command, IdempotencyKey, Reply, Transaction
from novitai.lifecycle.operations import launch_spec
from novitai.settings import FailedInstancePolicy
from novitai.store.queries import instances
from novitai.testing import an_instance
from tests.chaos.cases import Act, Case, Lot
from tests.chaos.fleet import RECEIVER, Fleet, Killed, Member
from tests.chaos.inline_store import InlineStore
from tests.chaos.judge import Judge, Violation
from tests.domain.making import TESTER
from tests.lifecycle.world import REQUEST

REST_WITHIN: Final = 2_500.0
"""Virtual seconds from the request until everything must be at rest."""
_THEIRS: Final = ("theirs-1", "theirs-2")
_OTHERS: Final = ("other-1", "other-2", "other-3")
"""Records that run all the time. With fewer of them, an absence is doubted for ten minutes."""
_REPLY: Final = 202

Make = Callable[[Application], Transaction[Any] | Command[Any]]


@dataclass
class Result:
    """The result of a life.

    Attributes:
        case: The case.
        violations: The promises that it broke.
        reached: How often each crash point was reached.
        crashed: Whether the crash point of the case was reached.
        recovered: Virtual seconds from the crash until everything was at rest.
        story: The calls, events and rows, if a promise was broken.
    """

    case: Case
    violations: list[str] = field(default_factory=list)
    reached: Counter[tuple[CrashPoint, str]] = field(default_factory=Counter)
    crashed: bool = False
    recovered: float = 0.0
    story: list[str] = field(default_factory=list)


class Life:
    """Drives a fleet through a case."""

    def __init__(self, fleet: Fleet, case: Case) -> None:
        self.fleet = fleet
        self.case = case
        self.chance = random.Random(case.seed ^ 0x5EED)
        self.judge = Judge(fleet, hides=case.group.fault.hides, stalls=case.lot is Lot.FREEZE)
        self.clients: list[asyncio.Task[Any]] = []
        self.crashed_at: float | None = None
        self._hits = 0
        self._again: dict[Member, float] = {}
        self._thaw: dict[Member, float] = {}
        self._keys = 0

    async def live(self) -> float:
        """Live; return the virtual seconds from the crash until rest.

        Raises:
            Violation: a promise was broken.
        """
        fleet = self.fleet
        ids = await self._seed(*_THEIRS, *_OTHERS)
        self.judge.strangers(ids[: len(_THEIRS)])
        for name, upstream_id in zip(_OTHERS, ids[len(_THEIRS) :], strict=True):
            await self._own(name, upstream_id=upstream_id, webhook_url=None)
        prepare, act = _PLANS[self.case.group.act]
        await prepare(self)
        fault = self.case.group.fault
        for rule in fault.rules:
            await fleet.emulator.call("POST", "faults", json=rule)
        fleet.receiver.failures, fleet.receiver.losses = fault.refusals, fault.losses
        fleet.reached.clear()
        fleet.hit = self._hit
        self._begin(act(self))
        began = fleet.clock.monotonic()
        while not await self._at_rest():
            lived = fleet.clock.monotonic() - began
            if lived > REST_WITHIN:
                raise Violation(f"not at rest within {REST_WITHIN:g} s: {self.judge.unfinished()}")
            await self._pass(1.0 if lived < 60 else 5.0)
        rested = fleet.clock.monotonic()
        fleet.hit = None
        # A hidden purchase is deleted when a listing shows it, which may be after the rest.
        await self._pass(120.0 if fault.hides else 6.0)
        self.judge.conclude()
        return rested - (self.crashed_at if self.crashed_at is not None else began)

    # The client

    async def request(self, make: Make, render: Callable[[Any], object] = repr) -> Any:
        """Send a request until it is answered, always with the same key; return the answer.

        A repetition of the answered request must give the same bytes.
        """
        self._keys += 1
        key = IdempotencyKey("key_of_client", "POST /chaos", f"request-{self._keys}", "digest")
        first = await self._until_answered(make, render, key)
        again = await self._until_answered(make, render, key)
        if again.body != first.body:
            raise Violation(f"a repeated request got another answer: {again.body!r}")
        return orjson.loads(first.body)

    async def _until_answered(
        self, make: Make, render: Callable[[Any], object], key: IdempotencyKey
    ) -> Reply:
        fleet = self.fleet

        def reply(result: Any) -> Reply:
            return Reply(_REPLY, {}, orjson.dumps(render(result)))

        while True:
            api = fleet.api
            if api is not None and api.thawed.is_set():
                run = api.app.commands.run(make(api.app), reply, key=key)
                try:
                    return await fleet.as_member(api, run)
                except Killed:
                    pass
                except ApiError as error:
                    if error.status < 500 and error.code != "IDEMPOTENCY_IN_PROGRESS":
                        raise Violation(f"a request was refused: {error.code}: {error}") from error
            await fleet.clock.sleep(self.chance.uniform(0.5, 3.0))

    async def create(self, request: CreateRequest = REQUEST) -> str:
        """Create an instance; return its ID."""
        wanted = replace(request, webhook_url=RECEIVER, template_id="107802")
        instance_id: str = await self.request(
            lambda app: app.create_instance.create(wanted, actor=TESTER),
            lambda created: created.instance_id,
        )
        self.judge.records.add(instance_id)
        return instance_id

    async def verb(self, kind: OperationKind, instance_id: str) -> None:
        """Request a verb."""
        operation_id = await self.request(
            lambda app: app.operating.ask(kind, instance_id, actor=TESTER),
            lambda accepted: accepted.operation.id if accepted.operation else None,
        )
        self.judge.acknowledged.add(operation_id)
        expected = {
            OperationKind.DELETE: InstanceStatus.TERMINATED,
            OperationKind.STOP: InstanceStatus.STOPPED,
        }.get(kind, InstanceStatus.RUNNING)
        self.judge.expected[instance_id] = {expected}

    # Time

    async def until_status(self, instance_id: str, status: InstanceStatus) -> None:
        """Let time pass until an instance has a status."""
        for _ in range(120):
            if self.judge.status(instance_id) is status:
                return
            await self._pass(1.0)
        raise Violation(f"{instance_id} never was {status} in the preparation")

    def _begin(self, work: Awaitable[Any]) -> None:
        self.clients.append(asyncio.ensure_future(work))

    async def _until_done(self, work: Awaitable[Any]) -> Any:
        task = asyncio.ensure_future(work)
        while not task.done():
            await self._pass(1.0)
        return task.result()

    async def _pass(self, seconds: float) -> None:
        fleet = self.fleet
        end = fleet.clock.monotonic() + seconds
        while fleet.clock.monotonic() < end:
            await fleet.pass_time(1.0)
            self.judge.look()
            now = fleet.clock.monotonic()
            for member in [one for one, at in self._again.items() if at <= now]:
                del self._again[member]
                await self._restart(member)
            for member in [one for one, at in self._thaw.items() if at <= now]:
                del self._thaw[member]
                member.thawed.set()

    async def _restart(self, member: Member) -> None:
        with contextlib.suppress(Killed):  # it may crash again while it starts
            await self.fleet.start(works=member.works)

    async def _at_rest(self) -> bool:
        if self._again or self._thaw or not all(one.done() for one in self.clients):
            return False
        for client in self.clients:
            client.result()
        return not self.judge.unfinished()

    def _hit(self, member: Member, point: CrashPoint, subject: str) -> None:
        case = self.case
        if (point, subject) != (case.point, case.subject):
            return
        self._hits += 1
        last = case.nth + (1 if case.lot is Lot.KILL_TWICE else 0)
        if not case.nth <= self._hits <= last:
            return
        now = self.fleet.clock.monotonic()
        self.crashed_at = now if self.crashed_at is None else self.crashed_at
        if case.lot is Lot.FREEZE:
            member.thawed.clear()
            member.stalled = True
            self._thaw[member] = now + self.chance.uniform(5, 45)
            return
        self._again[member] = now + self.chance.uniform(0.5, 25)
        self.fleet.kill_soon(member)

    async def _seed(self, *names: str, status: str = "running") -> list[str]:
        wanted = {"names": list(names), "status": status}
        given = await self.fleet.emulator.call("POST", "seed", json=wanted)
        ids: list[str] = given["ids"]
        return ids

    async def _own(
        self,
        name: str,
        status: InstanceStatus = InstanceStatus.RUNNING,
        word: str = "running",
        *,
        upstream_id: str | None = None,
        **more: Any,
    ) -> None:
        """Store a record at rest, as an adoption would leave it."""
        if upstream_id is None:
            (upstream_id,) = await self._seed(name, status=word)
        row = self.fleet.upstream.instances[upstream_id]
        now = self.fleet.clock.now()
        made = an_instance(
            status,
            **{
                "id": f"inst_{name}",
                "name": name,
                "created_at": now,
                "updated_at": now,
                "webhook_url": RECEIVER,
                **more,
            },
        )
        columns = {
            "origin": Origin.ADOPTED.value,
            "upstream_id": upstream_id,
            "upstream_created_at": int(row.shown_created_at * 1000),
            "confirmed_at": now,
            "bought_at": now,
            "ready_at": now if status is InstanceStatus.RUNNING else None,
            "ever_ran": True,
            "obs_status": word,
            "obs_at": now,
        }

        def store(connection: Connection) -> None:
            instances.insert(connection, made, sealed)
            instances.update_columns(connection, made.id, columns)
            member.app.limits.created(
                connection, instances.load_many(connection, [made.id])[made.id]
            )

        member = self.fleet.members[0]
        sealed = launch_spec.seal(self.fleet.store.vault, LaunchSpec("ubuntu:24.04"))
        await self.fleet.as_member(member, member.app.database.write(store))
        self.judge.records.add(made.id)
        self.judge.adopted.add(upstream_id)
        self.judge.expected[made.id] = {status}
        self.ours = made.id

    # The lives

    async def nothing(self) -> None:
        """Prepare nothing."""

    async def a_running_one(self) -> None:
        """Prepare an instance that runs."""
        await self._own("ours")

    async def a_stopped_one(self) -> None:
        """Prepare an instance that is stopped."""
        await self._own("ours", InstanceStatus.STOPPED, "exited")

    async def a_limited_one(self) -> None:
        """Prepare an instance with a limit that is due soon."""
        stop_at = self.fleet.clock.now() + 20_000
        await self._own("ours", limits=LimitSettings(stop_at=stop_at))

    async def two_running_ones(self) -> None:
        """Prepare two instances that run."""
        await self._own("another")
        await self._own("ours")

    async def a_foreign_one(self) -> None:
        """Prepare an instance that is to be adopted."""
        self.adoptable = (await self._seed("ours-to-be"))[0]
        while not self.judge.listed(self.adoptable):
            await self._pass(1.0)

    async def a_deleted_one(self) -> None:
        """Prepare an instance that was deleted."""
        await self.a_running_one()
        await self._until_done(self.verb(OperationKind.DELETE, self.ours))
        await self.until_status(self.ours, InstanceStatus.TERMINATED)

    async def a_doomed_one(self) -> None:
        """Let the next create end in an error."""
        doom = {"kind": "outcome", "operation": "create", "result": "statusError", "times": 1}
        await self.fleet.emulator.call("POST", "faults", json=doom)

    async def create_one(self) -> None:
        """Create an instance."""
        instance_id = await self.create()
        self.judge.expected[instance_id] = {InstanceStatus.RUNNING}

    async def create_failing(self) -> None:
        """Create an instance that fails."""
        instance_id = await self.create()
        self.judge.expected[instance_id] = {InstanceStatus.FAILED, InstanceStatus.RUNNING}

    async def create_and_delete(self) -> None:
        """Create an instance, and delete it soon."""
        instance_id = await self.create()
        await self.fleet.clock.sleep(self.chance.uniform(0, 8))
        await self.verb(OperationKind.DELETE, instance_id)

    async def stop_all(self) -> None:
        """Stop everything."""
        begun = await self.request(
            lambda app: app.operating.stop_all(actor=TESTER),
            lambda done: [one.operation.id for one in done.accepted if one.operation],
        )
        self.judge.acknowledged.update(begun)
        for instance_id in self.judge.records:
            self.judge.expected[instance_id] = {InstanceStatus.STOPPED}

    async def reach_a_limit(self) -> None:
        """Wait for the limit that the preparation has set."""
        self.judge.expected[self.ours] = {InstanceStatus.STOPPED}
        while self.judge.status(self.ours) is not InstanceStatus.STOPPED:
            await self.fleet.clock.sleep(1)

    async def adopt_and_delete(self) -> None:
        """Adopt a foreign instance, and delete it."""
        upstream_id = self.adoptable
        adopting = self.request(
            lambda app: app.ownership.adopt(AdoptRequest(upstream_id), actor=TESTER),
            lambda adopted: adopted.instance_id,
        )
        self.judge.adopted.add(upstream_id)
        instance_id = await adopting
        self.judge.records.add(instance_id)
        await self.fleet.clock.sleep(self.chance.uniform(0, 4))
        await self.verb(OperationKind.DELETE, instance_id)

    async def be_migrated(self) -> None:
        """Have the instance migrated from outside."""
        self.judge.expected[self.ours] = {InstanceStatus.RUNNING}
        await self.fleet.emulator.client.post(
            "/gpu-instance/openapi/v1/gpu/instance/migrate",
            json={"instanceId": self.judge.upstream_id(self.ours)},
            headers={"Authorization": "Bearer somebody-else"},
        )
        for _ in range(90):  # while no process runs, it may come and go unseen
            if self.judge.status(self.ours) is not InstanceStatus.RUNNING:
                return
            await self.fleet.clock.sleep(1)

    async def come_back(self) -> None:
        """Have the deleted instance appear again."""
        upstream_id = self.judge.upstream_id(self.ours)
        self.judge.expected[self.ours] = {InstanceStatus.TERMINATED}
        await self.fleet.emulator.call(
            "PATCH", f"instances/{upstream_id}", json={"status": "running"}
        )
        for _ in range(600):
            row = self.fleet.upstream.instance_or_none(upstream_id)
            if row and phase(row, self.fleet.upstream.clock.now()).status is Status.REMOVED:
                return
            await self.fleet.clock.sleep(2)
        raise Violation("the instance that came back was not deleted again")


def _verb(kind: OperationKind) -> Callable[[Life], Awaitable[None]]:
    return lambda life: life.verb(kind, life.ours)


_Part = Callable[[Life], Awaitable[None]]
_PLANS: Final[dict[Act, tuple[_Part, _Part]]] = {
    Act.CREATE: (Life.nothing, Life.create_one),
    Act.CREATE_DELETE: (Life.nothing, Life.create_and_delete),
    Act.START: (Life.a_stopped_one, _verb(OperationKind.START)),
    Act.STOP: (Life.a_running_one, _verb(OperationKind.STOP)),
    Act.RESTART: (Life.a_running_one, _verb(OperationKind.RESTART)),
    Act.DELETE: (Life.a_running_one, _verb(OperationKind.DELETE)),
    Act.DELETE_AGAIN: (Life.a_deleted_one, Life.come_back),
    Act.STOP_ALL: (Life.two_running_ones, Life.stop_all),
    Act.LIMIT: (Life.a_limited_one, Life.reach_a_limit),
    Act.ADOPT: (Life.a_foreign_one, Life.adopt_and_delete),
    Act.MIGRATION: (Life.a_running_one, Life.be_migrated),
    Act.CLEAN_UP: (Life.a_doomed_one, Life.create_failing),
}


async def live(store: InlineStore, folder: Path, case: Case) -> Result:
    """Live a case; a broken promise is in the result."""
    policy = random.Random(case.seed).choice(list(FailedInstancePolicy))
    fleet = Fleet(
        store,
        folder,
        workers=case.group.workers,
        seed=case.seed,
        failed_instance_policy=policy,
    )
    result = Result(case)
    async with fleet.running():
        life = Life(fleet, case)
        try:
            result.recovered = await life.live()
        except Violation as violation:
            result.violations.append(str(violation))
            result.story = life.judge.story()
        finally:
            for client in life.clients:
                client.cancel()
            await asyncio.gather(*life.clients, return_exceptions=True)
        result.reached = fleet.reached
        result.crashed = life.crashed_at is not None
    return result

# SPDX-License-Identifier: Apache-2.0
"""Random verbs, upstream faults, crashes and changes behind our back, against what must hold.

After every step: allowed transitions only, never two live upstream instances for one record, no
foreign instance touched, terminal states final. In the end, with upstream well again: every
acknowledged operation has reached its end, and records and upstream agree.

TEST_MODEL_EXAMPLES and TEST_MODEL_STEPS lengthen the run (`make soak`).
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from novitai.clock import ManualClock
from novitai.domain.event import Event, of_status
from novitai.domain.instance import TRANSITIONS, BillingMode, Instance, InstanceStatus
from novitai.domain.marker import read_marker
from novitai.domain.operation import OperationKind
from novitai.domain.requests import CreateRequest
from novitai.emulator import EmulatorConfig, create_app
from novitai.errors import ApiError
from novitai.lifecycle.idempotency import Reply
from novitai.lifecycle.operating import StopAll
from novitai.settings import FailedInstancePolicy
from novitai.store import attempts, events, instances, operations
from tests.lifecycle.conftest import REQUEST, Emulator, World, settings_for

T = TypeVar("T")

EXAMPLES = int(os.environ.get("TEST_MODEL_EXAMPLES", "6"))
STEPS = int(os.environ.get("TEST_MODEL_STEPS", "25"))
LONGEST_LAG = 90
"""Seconds; under the time of absence, beyond which no control plane could tell."""

VERBS = [OperationKind.START, OperationKind.STOP, OperationKind.RESTART, OperationKind.DELETE]

FAULTS: list[dict[str, Any]] = [
    {"kind": "call", "path": "/gpu/instance/create", "drop": True, "when": "after", "times": 1},
    {"kind": "call", "path": "/gpu/instance/create", "drop": True, "when": "before", "times": 1},
    {"kind": "call", "path": "/gpu/instance/create", "status": 500, "when": "after", "times": 1},
    {"kind": "call", "path": "/gpu/instance/create", "body": "malformed", "times": 1},
    {"kind": "call", "path": "/gpu/instance/create", "status": 429, "retryAfter": 3, "times": 1},
    {
        "kind": "call",
        "path": "/gpu/instance/create",
        "status": 400,
        "reason": "INSUFFICIENT_RESOURCE",
        "times": 2,
    },
    {"kind": "call", "path": "/gpu/instance/stop", "status": 400, "when": "after", "times": 1},
    {"kind": "call", "path": "/gpu/instance/stop", "drop": True, "when": "after", "times": 1},
    {"kind": "call", "path": "/gpu/instance/start", "status": 400, "when": "after", "times": 1},
    {"kind": "call", "path": "/gpu/instance/start", "status": 500, "when": "before", "times": 1},
    {"kind": "call", "path": "/gpu/instance/delete", "drop": True, "when": "after", "times": 1},
    {"kind": "call", "path": "/gpu/instance/delete", "status": 404, "when": "before", "times": 1},
    {"kind": "call", "path": "/gpu/instances", "body": "malformed", "times": 2},
    {"kind": "call", "path": "/gpu/instances", "status": 503, "times": 3},
    {"kind": "call", "path": "/gpu/instance", "status": 404, "times": 3},
    {"kind": "call", "path": "*", "status": 401, "times": 2},
    {"kind": "list", "lagSeconds": LONGEST_LAG, "times": 10},
    {"kind": "list", "omit": "*", "times": 2},
    {"kind": "list", "repeat": "*", "times": 3},
    {"kind": "list", "totalDelta": 1, "times": 2},
    {"kind": "outcome", "operation": "create", "result": "statusError", "times": 1},
    {"kind": "outcome", "operation": "create", "result": "exited", "times": 1},
    {"kind": "outcome", "operation": "create", "result": "neverBoots", "times": 1},
    {"kind": "outcome", "operation": "start", "result": "statusError", "times": 1},
    {"kind": "capacity", "product": "gpu-basic.8c32g", "times": 1},
]

OUTAGES: list[dict[str, Any]] = [
    *(
        {"kind": "call", "path": f"/gpu/instance/{verb}", **how}
        for verb in ("create", "start", "stop", "restart", "delete")
        for how in ({"status": 503}, {"drop": True, "when": "after"})
    ),
    {"kind": "call", "path": "/gpu/instances", "status": 503},
    {"kind": "call", "path": "/gpu/instance", "status": 404},
    {"kind": "call", "path": "/gpu/instance", "status": 503},
    {"kind": "call", "path": "*", "drop": True},
    {"kind": "capacity", "operations": ["start"]},
    {"kind": "list", "omit": "*"},
]
"""What goes on until it is healed."""

HABITS: dict[str, list[Any]] = {
    "deleteNotFoundSeconds": [0, 0, 20, 120],
    "removedLingerSeconds": [0, 0, 600],
    "lifecycleReply": ["object", "state", "empty"],
    "notFoundStatus": [400, 404],
    "delays": [
        {"restarting": [10, 40]},
        {"toRestart": [0.3, 0.3], "restarting": [0.5, 0.5]},
        {"migrating": [900, 900]},
        {"toRemove": [0.5, 0.5], "removing": [0.5, 0.5]},
    ],
}
"""How upstream is in one life (`PATCH /_emulator/settings`)."""

TEMPLATES = ["tmpl-12345", "107802"]
"""One with ports of both kinds, one with none."""

steps_taken = 0


@pytest.fixture(scope="module", autouse=True)
def _template(_sqlite_template: Path) -> None:
    LifecycleMachine.template = _sqlite_template


@pytest.fixture(scope="module", autouse=True)
def _quietly() -> Iterator[None]:
    """Log nothing: the log of fifty thousand steps under faults is read by nobody."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.configure(**before)


class LifecycleMachine(RuleBasedStateMachine):
    """A control plane and the emulator under it, driven at random."""

    template: Path

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = Path(tempfile.mkdtemp(prefix="novitai-model-"))
        self.ids: list[str] = []
        self.ended: set[str] = set()
        self.acknowledged: set[str] = set()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the machine's own loop."""
        return self.runner.run(work)

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        """Start with a few instances that are not ours."""
        self.random = random.Random(seed)
        self.run(self._begin(seed))

    async def _begin(self, seed: int) -> None:
        path = self.folder / "novitai.db"
        shutil.copyfile(self.template, path)
        clock = ManualClock()
        app = create_app(
            EmulatorConfig(time_source=clock.monotonic, seed=seed, public_url="http://emulator")
        )
        self.lifespan = app.router.lifespan_context(app)
        await self.lifespan.__aenter__()
        habits = {name: self.random.choice(choices) for name, choices in HABITS.items()}
        self.policy = self.random.choice(list(FailedInstancePolicy))
        chosen = settings_for(f"sqlite:///{path}", self.folder, failed_instance_policy=self.policy)
        self.world = World(chosen, clock, Emulator(app), seed=seed, sweep_interval=15)
        await self.world.emulator.call("PATCH", "settings", json=habits)
        await self.world.emulator.call("POST", "seed", json={"count": 3, "namePrefix": "theirs"})
        self.foreign = await self._foreign()
        await self.world.open()

    async def _foreign(self) -> list[tuple[object, ...]]:
        rows = [row for row in await self.world.emulator.ever() if "theirs" in row["name"]]
        return sorted((r["id"], r["name"], r["status"], r["starts"], r["live"]) for r in rows)

    @rule(template=st.sampled_from(TEMPLATES), mode=st.sampled_from(BillingMode))
    def create(self, template: str, mode: BillingMode) -> None:
        """Ask for an instance; a refusal is an answer."""
        request = replace(
            REQUEST,
            name=f"box-{len(self.ids)}",
            template_id=template,
            billing_mode=mode,
            region_fallback=True,
        )
        self.run(self._guarded(lambda: self._create(request)))

    async def _create(self, request: CreateRequest) -> None:
        creating = asyncio.create_task(self.world.create(request))
        while not creating.done():
            await self.world.pass_time(1)
        instance_id = await creating
        self.ids.append(instance_id)

    @rule(kind=st.sampled_from(VERBS), which=st.integers(0, 20))
    def ask(self, kind: OperationKind, which: int) -> None:
        """Ask an instance for a verb."""
        if self.ids:
            self.run(self._guarded(lambda: self._ask(kind, self.ids[which % len(self.ids)])))

    async def _ask(self, kind: OperationKind, instance_id: str) -> None:
        def reply(accepted: Any) -> Reply:
            operation = accepted.operation
            return Reply(202, {}, (operation.id if operation else "").encode())

        answer = await self.world.app.operating.ask(kind, instance_id, reply=reply)
        if answer.body:
            self.acknowledged.add(answer.body.decode())

    @rule()
    def stop_all(self) -> None:
        """Ask everything to stop."""
        self.run(self._guarded(self._stop_all))

    async def _stop_all(self) -> None:
        def reply(done: StopAll) -> Reply:
            begun = [one.operation.id for one in done.accepted if one.operation]
            return Reply(202, {}, " ".join(begun).encode())

        answer = await self.world.app.operating.stop_all(reply=reply)
        self.acknowledged.update(answer.body.decode().split())

    @rule()
    def sync(self) -> None:
        """Ask for a listing."""
        self.run(self._guarded(self._sync))

    async def _sync(self) -> None:
        answer = await self.world.app.operating.sync(
            reply=lambda operation_id: Reply(202, {}, operation_id.encode())
        )
        self.acknowledged.add(answer.body.decode())

    @rule(which=st.integers(0, 20))
    def cancel(self, which: int) -> None:
        """Try to cancel whatever runs on an instance."""
        if self.ids:
            self.run(self._guarded(lambda: self._cancel(self.ids[which % len(self.ids)])))

    async def _cancel(self, instance_id: str) -> None:
        view = await self.world.view(instance_id)
        if "operation" in view:
            await self.world.app.operating.cancel(
                view["operation"]["id"], reply=lambda _operation: Reply(200, {}, b"")
            )

    @rule(seconds=st.sampled_from([1, 2, 5, 10, 30]))
    def pass_time(self, seconds: int) -> None:
        """Let time pass."""
        self.run(self.world.pass_time(seconds, step=2))

    @rule(seconds=st.sampled_from([120, 300]))
    def pass_much_time(self, seconds: int) -> None:
        """Let much time pass."""
        self.run(self.world.pass_time(seconds, step=5))

    @rule(given=st.sampled_from(FAULTS))
    def break_upstream(self, given: dict[str, Any]) -> None:
        """Have upstream misbehave soon."""
        self.run(self._break(given))

    async def _break(self, given: dict[str, Any]) -> None:
        if given.get("omit") == "*" or given.get("repeat") == "*":
            alive = [row["id"] for row in await self.world.emulator.ever() if row["live"]]
            word = "omit" if "omit" in given else "repeat"
            given = {**given, word: self.random.choice(alive)}
        await self.world.emulator.call("POST", "faults", json=given)

    @rule(given=st.sampled_from(OUTAGES))
    def fail_for_long(self, given: dict[str, Any]) -> None:
        """Have something of upstream's fail until it is healed."""
        self.run(self._break(given))

    @rule(which=st.integers(0, 20), status=st.sampled_from(["migrating", "freezing", "toStop"]))
    def hold(self, which: int, status: str) -> None:
        """Have one of our instances stay in a status until it is healed."""
        self.run(self._hold(which, status))

    async def _hold(self, which: int, status: str) -> None:
        ours = await self._ours()
        if ours:
            row = ours[which % len(ours)]
            held = {"status": status}
            await self.world.emulator.call("POST", f"instances/{row['id']}/hold", json=held)

    @rule()
    def heal(self) -> None:
        """Take every fault away."""
        self.run(self._heal())

    async def _heal(self) -> None:
        await self.world.emulator.call("DELETE", "faults")
        for row in await self._ours():
            if row["held"]:
                free = {"status": None}
                await self.world.emulator.call("POST", f"instances/{row['id']}/hold", json=free)

    async def _ours(self) -> list[dict[str, Any]]:
        return [
            row
            for row in await self.world.emulator.ever()
            if row["live"] and "theirs" not in row["name"]
        ]

    @rule(
        act=st.sampled_from(["stop", "delete", "run", "reclaim", "migrate"]),
        which=st.integers(0, 20),
    )
    def meddle(self, act: str, which: int) -> None:
        """Change one of our instances behind our back."""
        self.run(self._meddle(act, which))

    async def _meddle(self, act: str, which: int) -> None:
        ours = await self._ours()
        if not ours:
            return
        row = ours[which % len(ours)]
        if act == "reclaim":
            if row["billingMode"] == "spot" and row["status"] == "running":
                await self.world.emulator.call("POST", f"instances/{row['id']}/reclaim", json={})
        elif act == "migrate":
            await self.world.emulator.client.post(
                "/gpu-instance/openapi/v1/gpu/instance/migrate",
                json={"instanceId": row["id"]},
                headers={"Authorization": "Bearer somebody-else"},
            )
        elif act != "run":
            await self.world.emulator.call("POST", f"instances/{row['id']}/{act}", json={})
        elif row["status"] == "exited" and await self._is_stopped(row["id"]):
            await self.world.emulator.call(
                "PATCH", f"instances/{row['id']}", json={"status": "running"}
            )

    async def _is_stopped(self, upstream_id: str) -> bool:
        views = [await self.world.view(one) for one in self.ids]
        return any(
            view.get("upstreamId") == upstream_id and view["status"] == "stopped" for view in views
        )

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """End the process, in order or by a crash, and start another."""
        self.run(self._restart(crash))

    async def _restart(self, crash: bool) -> None:
        if crash:
            self.world.at_work.crash()
        await self.world.end()
        await self.world.open()

    @invariant()
    def what_must_hold(self) -> None:
        """Check everything that must hold at any moment."""
        global steps_taken  # noqa: PLW0603 - a machine is made for each life
        steps_taken += 1
        if hasattr(self, "world"):
            self.run(self._check())

    async def _check(self) -> None:
        rows = await self.world.emulator.ever()
        marks = [read_marker(row["name"]) for row in rows if row["live"]]
        wanted = [mark.attempt_id for mark in marks if mark is not None]
        known = await self.world.app.database.read(lambda c: attempts.by_ids(c, wanted))
        alive = Counter(known[attempt_id].instance_id for attempt_id in wanted)
        assert not [one for one, count in alive.items() if count > 1], "two live for one record"
        assert len(known) == len(set(wanted)), "a live instance of ours without an attempt"
        assert await self._foreign() == self.foreign, "a foreign instance was touched"
        for instance_id in self.ids:
            await self._check_history(instance_id)

    async def _check_history(self, instance_id: str) -> None:
        def load(connection: Any) -> tuple[list[Event], Instance | None]:
            # At one moment: steps go on between two reads.
            log = events.of_instance(connection, instance_id)
            return log, instances.load(connection, instance_id)

        log, instance = await self.world.app.database.read(load)
        assert instance is not None
        told = {of_status(status): status for status in InstanceStatus}
        seen = [told[event.type] for event in log if event.type in told]
        for before, after in itertools.pairwise(seen):
            assert after in TRANSITIONS[before], f"{before} -> {after}"
        status = instance.status
        assert seen[-1] is status, "the last event tells another status"
        if instance_id in self.ended:
            assert status is InstanceStatus.TERMINATED, "terminated is final"
        if status is InstanceStatus.TERMINATED:
            self.ended.add(instance_id)

    def teardown(self) -> None:
        """Let upstream be well, and see that everything comes to rest."""
        try:
            if hasattr(self, "world"):
                self.run(self._come_to_rest())
        finally:
            self.runner.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    async def _come_to_rest(self) -> None:
        world = self.world
        try:
            await self._heal()
            await world.until(self._at_rest, within=7200, step=5)
            await self._check()
            await self._agree()
        finally:
            await world.end()
            await world.emulator.aclose()
            await self.lifespan.__aexit__(None, None, None)

    async def _at_rest(self) -> bool:
        def unfinished(connection: Any) -> int:
            return operations.count_unfinished(connection) + instances.count_in_transition(
                connection
            )

        return await self.world.app.database.read(unfinished) == 0

    async def _agree(self) -> None:
        await self.world.pass_time(400, step=5)
        rows = {row["id"]: row for row in await self.world.emulator.ever()}
        owned: set[str] = set()
        for instance_id in self.ids:
            instance = await self.world.app.database.read(
                partial(instances.load, instance_id=instance_id)
            )
            assert instance is not None
            owned.add(instance.upstream_id or "")
            row = rows.get(instance.upstream_id or "")
            status = row["status"] if row is not None and row["live"] else None
            wanted = self._wanted(instance)
            fits = wanted is None or status in wanted
            assert fits, (self.policy, instance, row, await self._story(instance_id))
        adrift = [row for row in await self._ours() if row["id"] not in owned]
        assert not adrift, "live, ours, and no record has it"
        for operation_id in self.acknowledged:
            assert (await self.world.app.history.operation(operation_id)).done

    async def _story(self, instance_id: str) -> list[tuple[int, str, object, object]]:
        """Tell an instance's history, for whoever has to understand a failure."""
        log = await self.world.app.database.read(
            partial(events.of_instance, instance_id=instance_id)
        )
        return [
            (event.at, event.type.value, event.data.get("upstreamStatus"), event.data.get("error"))
            for event in log
        ]

    def _wanted(self, instance: Instance) -> set[str | None] | None:
        """Tell what upstream may show of a record at rest; None if nothing can be said."""
        if instance.status is InstanceStatus.RUNNING:
            return {"running"}
        if instance.status is InstanceStatus.STOPPED:
            return {"exited"}
        if instance.status is InstanceStatus.TERMINATED:
            # What was proven gone and came back is told among the unmanaged, and not touched.
            return None if instance.observed.gone else {None}
        assert instance.status is InstanceStatus.FAILED, instance
        keeps = self.policy is FailedInstancePolicy.KEEP
        return None if keeps else {"exited", None}

    async def _guarded(self, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await act()
        except ApiError:
            return  # A refusal is an answer; what it must not do is checked above.


SETTINGS = settings(
    max_examples=EXAMPLES,
    stateful_step_count=STEPS,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
    phases=(Phase.generate,),  # a life takes seconds: it is told as it was found, not shrunk
    database=None,
    # The same lives each time in `make test`, other ones each time in `make soak`.
    derandomize="TEST_MODEL_EXAMPLES" not in os.environ,
)


@pytest.mark.timeout(0)
def test_whatever_happens_what_must_hold_holds() -> None:
    """Random lives under random faults, with crashes."""
    run_state_machine_as_test(LifecycleMachine, settings=SETTINGS)


def teardown_module() -> None:
    """Say how far the run went."""
    print(f"\nmodel: {steps_taken} steps")  # noqa: T201 - how far the soak went

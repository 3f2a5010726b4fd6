# SPDX-License-Identifier: Apache-2.0
"""Tools of the random model: faults, the ledger, and workers that stall."""

from __future__ import annotations

import contextlib
import copy
import shutil
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from novitai.app import Application
from novitai.clock import Clock
from novitai.domain.instance import BillingMode
from novitai.domain.operation import OperationKind
from novitai.lifecycle.operations.steps import Claimed, Step, Verb
from novitai.store.queries import instances
from novitai.upstream.errors import UpstreamError
from novitai.upstream.models import CreateInstance
from novitai.upstream.operations import Endpoint
from novitai.upstream.window import SendWindow

LONGEST_LAG = 90
"""Seconds; less than the time of absence, after which a late row cannot be detected."""

VERBS = [OperationKind.START, OperationKind.STOP, OperationKind.RESTART, OperationKind.DELETE]
MODES = list(BillingMode)
REGIONS = ["US-WEST-01", "US-WEST-01", "any"]
UNREADABLE = ["halfEmoji", "newline", "notUtf8", "null", "absent", "empty", "number", "object"]

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
    {"kind": "call", "path": "/gpu/instance/create", "replyId": "existing", "times": 1},
    {"kind": "call", "path": "/gpu/instance/create", "replyId": "theirs*", "times": 1},
    {"kind": "call", "path": "/gpu/instance/create", "replyId": "missing", "times": 1},
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
    {"kind": "list", "total": "absent", "times": 5},
    *(
        {"kind": "list", "spoil": "*", "field": "name", "value": value, "times": 4}
        for value in UNREADABLE
    ),
    {"kind": "list", "spoil": "box*", "field": "status", "value": "null", "times": 4},
    {"kind": "list", "spoil": "box*", "field": "id", "value": "null", "times": 4},
    {"kind": "list", "foreignRows": 2, "value": "halfEmoji", "times": 4},
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
    {"kind": "capacity", "operations": ["create"]},
    {"kind": "list", "omit": "*"},
    {"kind": "list", "omit": "everything"},
    {"kind": "list", "totalDelta": 1},
    {"kind": "list", "totalDelta": -1},
    {"kind": "list", "total": "absent"},
    {"kind": "list", "total": "null"},
    *({"kind": "list", "spoil": "*", "field": "name", "value": value} for value in UNREADABLE[:4]),
    {"kind": "list", "spoil": "theirs*", "field": "name", "value": "halfEmoji"},
]
"""Faults that last until they are removed."""

HABITS: dict[str, list[Any]] = {
    "deleteNotFoundSeconds": [0, 0, 20, 120],
    "removedLingerSeconds": [0, 0, 600],
    "lifecycleReply": ["object", "state", "empty"],
    "notFoundStatus": [400, 404],
    "nameFilter": ["works", "works", "ignored", "empty"],
    "delays": [
        {"restarting": [10, 40]},
        {"toRestart": [0.3, 0.3], "restarting": [0.5, 0.5]},
        {"migrating": [900, 900]},
        {"toRemove": [0.5, 0.5], "removing": [0.5, 0.5]},
    ],
}
"""The emulator's settings in one life (`PATCH /_emulator/settings`)."""

TEMPLATES = ["tmpl-12345", "107802"]
"""A template with ports of both types, and one without ports."""

WRITES: Final = ("start", "stop", "restart", "delete")


@dataclass
class Ledger:
    """The expectations that a backup must restore together with the database.

    Attributes:
        ids: The IDs of the records, in the order of their creation.
        ended: The records in a final status.
        acknowledged: The accepted operations.
        adopted: The upstream IDs that a person has assigned to a record.
        released: The upstream IDs that a person has released.
        confirmed: The records whose delete a person has confirmed during a hold.
        attempts: The record of each attempt.
    """

    ids: list[str] = field(default_factory=list)
    ended: set[str] = field(default_factory=set)
    acknowledged: set[str] = field(default_factory=set)
    adopted: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    confirmed: set[str] = field(default_factory=set)
    attempts: dict[str, str] = field(default_factory=dict)


class Files:
    """The files of the embedded database, and a copy of them."""

    def __init__(self, path: Path) -> None:
        self._files = [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
        self._copies = path.parent / "copies"

    def copy(self) -> None:
        """Copy the files; the database must be closed."""
        shutil.rmtree(self._copies, ignore_errors=True)
        self._copies.mkdir()
        for file in self._files:
            if file.exists():
                shutil.copyfile(file, self._copies / file.name)

    def put_back(self) -> None:
        """Restore the copy; the database must be closed."""
        for file in self._files:
            file.unlink(missing_ok=True)
        for file in self._copies.iterdir():
            shutil.copyfile(file, self._files[0].with_name(file.name))


@dataclass(frozen=True)
class Held:
    """A write call of a worker that was stopped before it could send it."""

    call: Endpoint
    upstream_id: str
    window: SendWindow
    kind: OperationKind | None
    creation: CreateInstance | None = None


class _Stopped(Exception):
    """Ends the step in this process, as if its worker had stopped; another takes over."""


class LateHands:
    """Workers that stop between their claim and their call, and continue much later.

    The step continues in this process as if in another one: its claim is released at once instead
    of expiring after 15 seconds.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._armed = False
        self.held: list[Held] = []

    def watch(self, app: Application) -> None:
        """Watch the calls of a process that has just started."""
        self._app = app
        self._act, self._create, self._step = app.client._act, app.client.create, app.runner._step
        self._kinds: dict[str, OperationKind] = {}
        for owner, name, instead in (
            (app.client, "_act", self._acting),
            (app.client, "create", self._creating),
            (app.runner, "_step", self._stepping),
        ):
            setattr(owner, name, instead)

    def arm(self) -> None:
        """Hold back the next write call."""
        self._armed = True

    def disarm(self) -> None:
        """Hold back no more calls."""
        self._armed = False

    def forget(self) -> None:
        """End the stopped workers: a database is put back while no process runs."""
        self.held.clear()

    async def go_on(self, *, slips: bool) -> None:
        """Let the stopped workers continue; with `slips`, they had passed the last check before.

        Raises:
            AssertionError: a call was sent after its claim had ended.
        """
        self._armed = False
        held, self.held = self.held, []
        for one in held:
            if slips and one.kind is not None:
                await self._slip(one, one.kind)
            else:
                await self._try(one)

    @property
    def due(self) -> bool:
        """Return whether every claim of a stopped worker has ended."""
        return all(one.window.is_over(self._clock) for one in self.held)

    async def _try(self, one: Held) -> None:
        with contextlib.suppress(UpstreamError):
            if one.creation is None:
                await self._act(one.call, one.upstream_id, one.window)
            else:
                permit = await self._app.client.permit_create()
                try:
                    await self._create(one.creation, permit=permit, window=one.window)
                finally:
                    permit.release()
        assert not one.window.sent, f"a call was sent after its claim had ended: {one}"

    async def _slip(self, one: Held, kind: OperationKind) -> None:
        window = SendWindow.lasting(self._clock, 15_000)
        with contextlib.suppress(UpstreamError):
            await self._act(one.call, one.upstream_id, window)
        if not window.sent:
            return
        owner = await self._app.database.read(
            partial(instances.owner_of, upstream_id=one.upstream_id)
        )
        if owner is not None:
            note = partial(self._app.runner._late_calls.note, instance_id=owner, kind=kind)
            await self._app.database.write(note)

    async def _stepping(self, verb: Verb, claimed: Claimed) -> Step:
        self._kinds[claimed.instance.upstream_id or ""] = verb.kind
        return await self._step(verb, claimed)

    async def _acting(self, call: Endpoint, upstream_id: str, window: SendWindow) -> None:
        kind = self._kinds.pop(upstream_id, None)
        if self._armed and kind is not None:
            self._stop(Held(call, upstream_id, window, kind))
        await self._act(call, upstream_id, window)

    async def _creating(self, request: CreateInstance, *, permit: Any, window: SendWindow) -> str:
        if self._armed:
            self._stop(Held(Endpoint.CREATE, "", window, None, request))
        return await self._create(request, permit=permit, window=window)

    def _stop(self, held: Held) -> None:
        self._armed = False
        # The window as it is now, for this call alone: a sync goes on with the window of its lease.
        window = replace(copy.deepcopy(held.window), sent=False)
        self.held.append(replace(held, window=window))
        raise _Stopped

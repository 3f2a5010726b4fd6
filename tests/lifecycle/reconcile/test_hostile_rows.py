# SPDX-License-Identifier: Apache-2.0
"""Hostile values in Novita's answers have almost no effect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.lifecycle.reconcile import observed_columns
from novitai.store.queries import instances
from novitai.upstream import reading
from tests.domain.making import TESTER
from tests.lifecycle.world import REQUEST, World

RUNNING = InstanceStatus.RUNNING
CREATE_PATH = "/gpu-instance/openapi/v1/gpu/instance/create"
LIST_PATH = "/gpu-instance/openapi/v1/gpu/instances"


class Spoiling:
    """An emulator that replaces some bytes of its answers, and records create calls."""

    def __init__(self, app: Any) -> None:
        self.inner: ASGIApp = app
        self.state = app.state
        self.swaps: dict[bytes, bytes] = {}
        self.rows: dict[str, Any] = {}
        self.created: list[Mapping[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request; send the parts of its answer as one."""
        head: list[Message] = []
        parts: list[bytes] = []
        sent: list[bytes] = []

        async def listen() -> Message:
            message = await receive()
            sent.append(message.get("body", b""))
            return message

        async def take(message: Message) -> None:
            if message["type"] == "http.response.start":
                head.append(message)
                return
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                body = self._spoil(scope["path"], b"".join(parts))
                headers = [pair for pair in head[0]["headers"] if pair[0] != b"content-length"]
                length = (b"content-length", str(len(body)).encode())
                await send({**head[0], "headers": [*headers, length]})
                await send({"type": "http.response.body", "body": body})

        await self.inner(scope, listen, take)
        if scope.get("path") == CREATE_PATH:
            self.created.append(orjson.loads(b"".join(sent)))

    def _spoil(self, path: str, body: bytes) -> bytes:
        if path == LIST_PATH and self.rows:
            page = orjson.loads(body)
            for row in page["instances"]:
                row.update(self.rows)
            body = orjson.dumps(page)
        for wanted, given in self.swaps.items():
            body = body.replace(wanted, given)
        return body


@pytest.fixture
async def spoiling(world: World) -> Spoiling:
    """The world's emulator, with answers that the test can change."""
    made = Spoiling(world.emulator.app)
    world.emulator.app = made  # type: ignore[assignment]  # an ASGI application in front of it
    await world.reopen()
    return made


async def delete(world: World, instance_id: str) -> None:
    """Delete an instance and wait."""
    await world.do(world.app.operating.ask(OperationKind.DELETE, instance_id, actor=TESTER))


@pytest.mark.parametrize(
    "name",
    [
        b'"\\ud83d"',
        b'"two\nlines\x1b[31m"',
        b'"caf\xe9"',
        b"NaN",
        b"null",
        b"[" * 2000 + b"]" * 2000,
    ],
    ids=["half-an-emoji", "control-characters", "latin-1", "nan", "null", "deep"],
)
async def test_a_strangers_name_stops_nobodys_create_or_delete(
    world: World, spoiling: Spoiling, name: bytes
) -> None:
    """A foreign instance with an odd name blocks no create and no delete."""
    await world.emulator.call("POST", "seed", json={"names": ["the-stranger"]})
    spoiling.swaps[b'"the-stranger"'] = name
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    await delete(world, instance_id)
    await world.until_status(instance_id, InstanceStatus.TERMINATED, within=400)
    strangers = await world.app.ownership.unmanaged()
    assert len(strangers) == 1
    assert strangers[0].row.name.isprintable()


async def test_secrets_in_addresses_are_in_the_credentials_alone(
    world: World, spoiling: Spoiling
) -> None:
    """Views, events and database files contain no secrets in clear text."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    spoiling.rows = {
        "connectComponentJupyter": {"address": "https://u:hunter2a@j.test/lab?token=hunter2b"},
        "connectComponentWebTerminal": {"address": "https://t.test/#hunter2c", "username": "me"},
        "connectComponentSSH": {"sshCommand": "ssh -p 22 root:hunter2d@s.test"},
        "portMappings": [
            {"port": 80, "endpoint": "https://u:hunter2e@e.test/", "type": "http"},
            {"port": 81, "endpoint": "u:hunter2f@e.test:81", "type": "tcp"},
            {"port": 82, "endpoint": "https://e.test/", "type": "http"},
        ],
        "statusError": {"state": "x", "message": "pull of https://u:hunter2g@hub.test/ failed"},
    }
    await world.pass_time(70)
    view = await world.view(instance_id)
    assert view["connectionDetails"] == {
        "ssh": "ssh://root@s.test:22",
        "jupyter": "https://j.test/lab",
        "webTerminal": "https://t.test/",
    }
    assert [mapping["endpoint"] for mapping in view["portMappings"]] == [
        "https://e.test/",
        "e.test:81",
        "https://e.test/",
    ]
    assert await world.app.operating.credentials(instance_id) == {
        "sshPassword": "hunter2d",
        "webTerminalUsername": "me",
        "jupyter": "https://u:hunter2a@j.test/lab?token=hunter2b",
        "webTerminal": "https://t.test/#hunter2c",
        "endpoints": [
            {"port": 80, "endpoint": "https://u:hunter2e@e.test/"},
            {"port": 81, "endpoint": "u:hunter2f@e.test:81"},
        ],
    }
    await delete(world, instance_id)
    await world.until_status(instance_id, InstanceStatus.TERMINATED, within=400)
    page = await world.app.history.of_instance(instance_id)
    assert b"hunter2" not in orjson.dumps([[event.data for event in page.events], view])
    files = files_under(world.settings.data_folder)
    assert any(b"instance.running" in content for content in files.values())
    assert not [name for name, content in files.items() if b"hunter2" in content]


async def test_an_error_repeats_no_variable_that_only_we_know(
    world: World, spoiling: Spoiling
) -> None:
    """Errors contain no environment variable's value and no upstream key."""
    request = replace(REQUEST, envs={"TOKEN": "hunter2-token", "PEM": "hunter2\nof lines"})
    instance_id = await world.create(request)
    await world.until_status(instance_id, RUNNING, within=400)
    key = world.settings.novita_api_key
    assert key is not None
    said = f"hunter2-token hunter2\nof lines {key.get_secret_value()} "
    spoiling.rows = {
        "envs": None,
        "status": "exited",
        "statusError": {"state": "hunter2-token", "message": f"{said:.<489}hunter2-token"},
    }
    await world.pass_time(70)
    shown = await world.app.database.read(lambda c: instances.load(c, instance_id))
    assert shown is not None
    told = shown.observed.error
    assert told is not None
    assert told.startswith("***: *** *** *** ....")
    assert told.endswith("...***")
    page = await world.app.history.of_instance(instance_id)
    view = await world.view(instance_id)
    assert b"hunter2" not in orjson.dumps([[event.data for event in page.events], view])
    files = files_under(world.settings.data_folder)
    assert not [name for name, content in files.items() if b"hunter2" in content]


def files_under(folder: Path) -> dict[str, bytes]:
    """Read every file below a directory."""
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


async def test_nothing_of_ours_grows_by_upstreams_doing(world: World, spoiling: Spoiling) -> None:
    """A million characters in each field give views and events of a few kilobytes."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    huge = "x" * 1_000_000
    spoiling.rows = {
        "status": f"running-{huge}",
        "spotStatus": huge,
        "statusError": {"state": huge, "message": huge},
        "portMappings": [
            {"port": port, "endpoint": f"https://e.test/{huge}", "type": huge} for port in (80, 81)
        ],
        "connectComponentJupyter": {"address": f"https://j.test/{huge}"},
        "connectComponentSSH": {"sshCommand": f"ssh root@{huge}", "password": huge},
    }
    await world.pass_time(70)
    view = await world.view(instance_id)
    assert str(view["upstreamStatus"]).startswith("running-x")
    assert len(orjson.dumps(view)) < 4_000
    page = await world.app.history.of_instance(instance_id)
    assert max(len(orjson.dumps(event.data)) for event in page.events) < 4_000
    told = [event.type.value for event in page.events].count("instance.drift")
    await world.pass_time(70)
    page = await world.app.history.of_instance(instance_id)
    assert [event.type.value for event in page.events].count("instance.drift") == told == 1


async def test_what_a_client_would_run_is_not_shown(world: World, spoiling: Spoiling) -> None:
    """Options as hosts, scripts as addresses and escape sequences are not shown."""
    instance_id = await world.create()
    await world.until_status(instance_id, RUNNING, within=400)
    spoiling.rows = {
        "connectComponentJupyter": {"address": "javascript:alert(1)"},
        "connectComponentWebTerminal": {"address": "https://t.test/\r\nX: y"},
        "connectComponentSSH": {"sshCommand": "ssh -p 22 root@-oProxyCommand=id"},
        "portMappings": [{"port": 80, "endpoint": "javascript:alert(1)", "type": "http"}],
        "statusError": {"state": "\x1b]0;x\x07", "message": "a\r\nb\u202e"},
    }
    await world.pass_time(70)
    view = await world.view(instance_id)
    assert "connectionDetails" not in view
    assert view["portMappings"] == [{"port": 80, "endpoint": "", "type": "http"}]
    shown = await world.app.database.read(lambda c: instances.load(c, instance_id))
    assert shown is not None
    assert shown.observed.error == "]0;x: a  b"


@pytest.mark.parametrize("kind", ["TCP", "udp", "https", "", None, 7, ["http"]])
async def test_no_type_of_a_templates_port_stops_a_create(
    world: World, spoiling: Spoiling, kind: object
) -> None:
    """Ports that can be published are sent once; the others are left out."""
    group = {"type": kind, "ports": [9000, 9000, "9000"]}
    template = {
        "Id": "tmpl-odd",
        "name": "odd",
        "type": "instance",
        "image": "ubuntu:24.04",
        "rootfsSize": 60,
        "ports": [group, {"type": "http", "ports": [8888]}],
        "tools": [{"name": "Jupyter", "port": 8888, "type": kind}],
        "envs": [{"key": "FLAG", "value": True}, {"key": "COUNT", "value": 1}],
    }
    body = orjson.dumps({"template": template}).decode()
    fault = {"kind": "call", "path": "/template", "rawBody": body, "status": 200}
    await world.emulator.call("POST", "faults", json=fault)
    instance_id = await world.create(replace(REQUEST, template_id="tmpl-odd"))
    await world.until(lambda: bought(spoiling), within=60)
    (created,) = spoiling.created
    published = {"TCP": "9000/tcp, 8888/http", "https": "9000/http, 8888/http"}
    assert created["ports"] == published.get(str(kind), "8888/http")
    assert [tool["type"] for tool in created.get("tools", [])] == (
        ["tcp"] if kind == "TCP" else ["http"] if kind == "https" else []
    )
    assert created["envs"] == [{"key": "FLAG", "value": "true"}, {"key": "COUNT", "value": "1"}]
    await world.until_status(instance_id, RUNNING, within=400)


async def bought(spoiling: Spoiling) -> bool:
    """Return whether a create call was sent."""
    return bool(spoiling.created)


def test_a_row_has_a_digest_whatever_it_holds() -> None:
    """Lone surrogates can be digested, and change the digest."""
    row = reading.instance({"id": "1", "status": "running"})
    assert row is not None
    odd = [replace(row, status=word) for word in ("\ud83d", "\ude00", "\x00", "\ufffd")]
    assert len({observed_columns.digest(one) for one in [row, *odd]}) == 5

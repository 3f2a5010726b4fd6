# SPDX-License-Identifier: Apache-2.0
"""HTTP port mappings."""

from __future__ import annotations

from typing import cast

from tests.emulator.client import Client, Json


async def endpoint(client: Client, instance_id: str) -> str:
    """Return the URL of the first port mapping."""
    mappings = cast("list[Json]", (await client.instance(instance_id))["portMappings"])
    return str(mappings[0]["endpoint"])


async def answer(client: Client, url: str) -> int:
    """Return the HTTP status of a URL."""
    return (await client.http.get(url)).status_code


async def until_running(client: Client, instance_id: str) -> None:
    """Advance the time until the status is `running`."""
    while await client.status(instance_id) != "running":
        client.emulator.clock.advance(1)


async def test_a_port_answers_502_until_the_instance_has_booted(client: Client) -> None:
    """A port is mapped once the instance runs and answers some seconds later."""
    instance_id = await client.create(ports="80/http")
    await until_running(client, instance_id)
    url = await endpoint(client, instance_id)
    assert url.startswith(f"http://emulator.test/_proxy/{instance_id}/80/")
    assert await answer(client, url) == 502
    await client.advance(10)
    assert await answer(client, url) == 200
    assert await answer(client, url + "some/path?x=1") == 200


async def test_an_address_dies_with_its_run(client: Client) -> None:
    """After a stop and a start, the old URL returns 502 and the new URL works."""
    instance_id = await client.running(ports="80/http")
    old = await endpoint(client, instance_id)
    await client.post("/gpu/instance/stop", {"instanceId": instance_id})
    assert await answer(client, old) == 502
    await client.advance(60)
    await client.post("/gpu/instance/start", {"instanceId": instance_id})
    await client.advance(300)
    new = await endpoint(client, instance_id)
    assert await answer(client, old) == 502
    assert await answer(client, new) == 200
    assert await answer(client, f"/_proxy/{instance_id}/80/") == 200


async def test_a_service_can_answer_otherwise_or_never(client: Client) -> None:
    """`serviceStatus` sets the response of a booted port; `neverBoots` keeps it at 502."""
    instance_id = await client.running(ports="80/http")
    await client.control("PATCH", f"/instances/{instance_id}", {"serviceStatus": 401})
    assert await answer(client, await endpoint(client, instance_id)) == 401
    await client.fault(kind="outcome", operation="create", result="neverBoots")
    instance_id = await client.create(ports="80/http")
    await client.advance(86_400)
    assert await client.status(instance_id) == "running"
    assert await answer(client, await endpoint(client, instance_id)) == 502


async def test_what_is_not_mapped_is_not_there(client: Client) -> None:
    """Unmapped ports, TCP ports and unknown instances return 404."""
    instance_id = await client.running(ports="80/http,22/tcp")
    for path in (f"{instance_id}/81/1/", f"{instance_id}/22/1/", "nobody/80/1/"):
        assert await answer(client, f"/_proxy/{path}") == 404


async def test_tools_and_logs_can_be_reached(client: Client) -> None:
    """The URLs of Jupyter, the web terminal and the logs work."""
    tools = [{"name": "Jupyter", "port": "8888", "type": "http"}]
    instance_id = await client.running(tools=tools)
    shown = await client.instance(instance_id)
    for component in ("connectComponentJupyter", "connectComponentWebTerminal"):
        assert await answer(client, str(cast("Json", shown[component])["address"])) == 200
    log = str(cast("Json", shown["connectComponentLog"])["systemLogAddress"])
    assert "running" in (await client.http.get(log)).text

# SPDX-License-Identifier: Apache-2.0
"""The whole client against the emulator, over real sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx2
import pytest

from novitai.clock import SystemClock
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import Ambiguous, Gone, InsufficientResource, InvalidStateChange
from novitai.upstream.models import CreateInstance, UpstreamInstance, UpstreamPort
from tests.windows import window_until

if TYPE_CHECKING:
    from tests.upstream.servers import Maker


@pytest.fixture
def client(emulator_url: str, make: Maker) -> NovitaClient:
    """A client of the emulator, in real time."""
    return make.at(emulator_url, clock=SystemClock())


async def control(url: str, path: str, body: dict[str, object]) -> None:
    """Configure the emulator."""
    async with httpx2.AsyncClient(trust_env=False) as http:
        method = "PATCH" if path == "settings" else "POST"
        answer = await http.request(method, f"{url}/_emulator/{path}", json=body)
        assert answer.status_code < 300, answer.text


async def buy(client: NovitaClient, name: str = "trainer-nv") -> str:
    """Create an instance of the first product."""
    [offer, *_] = await client.products(billing_method="onDemand")
    request = CreateInstance(
        name=name,
        product_id=offer.id,
        gpu_num=1,
        rootfs_size=60,
        image_url="pytorch/pytorch:latest",
        ports=(UpstreamPort(8888, "http"),),
        envs=(("A", "b"),),
    )
    permit = await client.permit_create()
    return await client.create(request, permit=permit, window=window_until())


async def seen(client: NovitaClient, instance_id: str, status: str) -> UpstreamInstance:
    """Poll until the instance has this status."""
    async with asyncio.timeout(60):
        while (found := await client.instance(instance_id)).status != status:  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.005)
        return found


async def test_an_instance_lives_and_dies(client: NovitaClient) -> None:
    """An instance is created, runs, is stopped, started, restarted and deleted, and is gone."""
    instance_id = await buy(client)
    running = await seen(client, instance_id, "running")
    assert running.ssh is not None
    assert running.ssh_password
    assert [mapping.port for mapping in running.port_mappings if mapping.endpoint] == [8888]

    await client.stop(instance_id, window=window_until())
    await seen(client, instance_id, "exited")
    with pytest.raises(InvalidStateChange):
        await client.stop(instance_id, window=window_until())
    await client.start(instance_id, window=window_until())
    await seen(client, instance_id, "running")
    await client.restart(instance_id, window=window_until())
    await seen(client, instance_id, "running")
    await client.delete(instance_id, window=window_until())
    with pytest.raises(Gone):
        await seen(client, instance_id, "never")
    assert not client.health().down


async def test_the_catalogue_is_read(client: NovitaClient) -> None:
    """Clusters, products of one cluster and templates are read."""
    clusters = await client.clusters()
    offers = await client.products(clusters[0].id, billing_method="spot")
    assert any(offer.price and offer.spot_price for offer in offers)
    assert all(offer.cpu_per_gpu and offer.memory_per_gpu and offer.name for offer in offers)
    templates = await client.templates()
    assert await client.template(templates[0].id) == templates[0]
    with pytest.raises(Gone):
        await client.template("no-such-template")


@pytest.mark.parametrize("docs_mode", [False, True])
async def test_a_listing_of_several_pages_is_complete(
    client: NovitaClient,
    emulator_url: str,
    docs_mode: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listing is complete in both page numberings, and incomplete if a row is missing."""
    monkeypatch.setattr("novitai.upstream.paging.PAGE_SIZES", (3,))
    await control(emulator_url, "settings", {"docsMode": docs_mode})
    ids = {await buy(client, f"trainer-{number}") for number in range(8)}
    listing = await client.list_instances()
    assert listing.complete
    assert {found.id for found in listing.instances} == ids

    await control(emulator_url, "faults", {"kind": "list", "omit": "trainer-3"})
    short = await client.list_instances()
    assert not short.complete or len(short.instances) == short.total == 7


async def test_a_create_whose_answer_is_lost_was_made_once(
    client: NovitaClient, emulator_url: str
) -> None:
    """A create whose response is lost is ambiguous, and the listing shows one instance."""
    path = "/gpu/instance/create"
    await control(
        emulator_url, "faults", {"kind": "call", "path": path, "drop": True, "when": "after"}
    )
    with pytest.raises(Ambiguous):
        await buy(client)
    listing = await client.list_instances()
    assert [found.name for found in listing.instances] == ["trainer-nv"]


async def test_no_stock_is_told_apart(client: NovitaClient, emulator_url: str) -> None:
    """Missing stock has its own error, so that the next candidate can be tried."""
    await control(emulator_url, "faults", {"kind": "capacity"})
    with pytest.raises(InsufficientResource) as caught:
        await buy(client)
    assert caught.value.reason == "INSUFFICIENT_RESOURCE"


async def test_gone_may_be_a_404(client: NovitaClient, emulator_url: str) -> None:
    """A 404 also means that the instance is gone."""
    await control(emulator_url, "settings", {"notFoundStatus": 404})
    with pytest.raises(Gone):
        await client.instance("0123456789abcdef")
    with pytest.raises(Gone):
        await client.delete("0123456789abcdef", window=window_until())

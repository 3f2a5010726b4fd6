# SPDX-License-Identifier: Apache-2.0
"""Fidelity: the independent client `novita-sdk` 0.5.0 runs unmodified against the emulator.

Its models are strict, so each response that it accepts has the fields and types that it expects
of the real API. Not tested are calls that are wrong in the client itself, which the real API
presumably refuses:

- `registries.create` sends ten asterisks instead of the password (the call itself works);
- `jobs.break_job` sends `job_id` instead of `jobId`;
- `image_prewarm.update` and `.delete` send `task_id` instead of `id` and `ids`;
- `metrics.get` uses an undocumented path;
- `endpoints` is the serverless API, which is not emulated.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
from novita import (
    AsyncNovitaClient,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    NovitaClient,
    RateLimitError,
)
from novita.generated.models import (
    CreateInstanceRequest,
    CreateNetworkRequest,
    CreateNetworkStorageRequest,
    CreateTemplateRequest,
    EditInstanceRequest,
    Kind,
    NetworkVolume,
    SaveImageRequest,
    UpdateNetworkRequest,
    UpdateNetworkStorageRequest,
    UpgradeInstanceRequest,
)

from novitai.emulator import EmulatorConfig, serve
from tests.emulator.client import Json


@pytest.fixture
async def url() -> AsyncIterator[str]:
    """The base URL of an emulator."""
    async with serve(EmulatorConfig(port=0)) as base_url:
        yield base_url


@pytest.fixture
async def sdk(url: str) -> AsyncIterator[AsyncNovitaClient]:
    """The SDK client with an emulator as its server."""
    async with AsyncNovitaClient(api_key="sdk-key", base_url=url) as client:
        yield client


async def control(url: str, path: str, body: Json, method: str = "POST") -> None:
    """Call the control API."""
    async with httpx2.AsyncClient(verify=False) as http:
        (await http.request(method, f"{url}/_emulator{path}", json=body)).raise_for_status()


def request(**more: object) -> CreateInstanceRequest:
    """Return a create request as the SDK models it."""
    return CreateInstanceRequest.model_validate(
        {
            "name": "sdk",
            "productId": "gpu-basic.8c32g",
            "gpuNum": 1,
            "rootfsSize": 60,
            "imageUrl": "ubuntu:24.04",
            "kind": Kind.gpu,
            "ports": "80/http,22/tcp",
            "tools": [{"name": "Jupyter", "port": "8888", "type": "http"}],
            "envs": [{"key": "A", "value": "b"}],
            **more,
        }
    )


async def test_an_instance_from_create_to_delete(sdk: AsyncNovitaClient, url: str) -> None:
    """An instance can be created, read in every status, operated, upgraded and deleted."""
    instances = sdk.gpu.instances
    instance_id = (await instances.create(request(billingMode="spot"))).id
    for _ in range(30):
        await control(url, "/clock", {"advance": 10})
        assert (await instances.get(instance_id)).id == instance_id
        assert [each.id for each in await instances.list()] == [instance_id]
    shown = await instances.get(instance_id)
    assert shown.status == "running"
    assert shown.port_mappings is not None
    assert len(shown.port_mappings) == 2
    await instances.edit(
        EditInstanceRequest.model_validate({"instanceId": instance_id, "expandRootDisk": 10})
    )
    for operation, end in (
        (instances.restart, "running"),
        (instances.stop, "exited"),
        (instances.start, "running"),
        (instances.migrate, "running"),
    ):
        await operation(instance_id)
        assert (await instances.get(instance_id)).status != end
        await control(url, "/clock", {"advance": 300})
        assert (await instances.get(instance_id)).status == end
    await instances.upgrade(
        UpgradeInstanceRequest(
            instance_id=instance_id,
            image_url="ubuntu:26.04",
            envs=[],
            command="",
            save=False,
            network_volume=NetworkVolume(volume_mounts=[]),
        )
    )
    assert (await instances.get(instance_id)).status == "toReset"
    await control(url, f"/instances/{instance_id}/notice", {})
    assert (await instances.get(instance_id)).spot_status == "notified"
    await instances.delete(instance_id)
    await control(url, "/clock", {"advance": 60})
    with pytest.raises(BadRequestError, match="not found"):
        await instances.get(instance_id)


async def test_paging_and_filters(sdk: AsyncNovitaClient, url: str) -> None:
    """Pages start at 0 in this client, and filters work."""
    await control(url, "/seed", {"count": 5, "status": "exited"})
    assert len(await sdk.gpu.instances.list(page_size=2, page_num=0)) == 2
    assert len(await sdk.gpu.instances.list(page_size=2, page_num=3)) == 1
    assert await sdk.gpu.instances.list(status="running") == []
    assert len(await sdk.gpu.instances.list(name="seed-", product_name="basic")) == 5


async def test_the_catalogue(sdk: AsyncNovitaClient) -> None:
    """Clusters, products and CPU products can be listed; the client converts prices to USD."""
    assert len(await sdk.gpu.clusters.list()) >= 6
    products = {each.id: each for each in await sdk.gpu.products.list()}
    assert products["4090.16c62g"].price == pytest.approx(0.35)
    assert products["4090.16c62g"].spot_price == pytest.approx(0.175)
    named = await sdk.gpu.products.list(
        cluster_id="cn-hongkong-1", gpu_num=2, product_name="gpu-basic", billing_method="spot"
    )
    assert [each.id for each in named if each.available_deploy] == ["gpu-basic.8c32g.hk"]
    assert await sdk.gpu.products.list_cpu(cluster_id="us-ca-6")


async def test_templates(sdk: AsyncNovitaClient) -> None:
    """Templates can be listed, read, created and deleted."""
    templates = sdk.gpu.templates
    assert len(await templates.list()) >= 4
    assert (await templates.get("tmpl-12345")).image.startswith("pytorch/")
    body = {
        "name": "sdk",
        "readme": "",
        "type": "instance",
        "channel": "private",
        "image": "ubuntu",
        "startCommand": "",
        "rootfsSize": 20,
        "ports": [{"type": "http", "ports": [80]}],
        "volumes": [],
        "envs": [],
    }
    made = await templates.create(CreateTemplateRequest.model_validate({"template": body}))
    template = await templates.get(made.template_id)
    assert (template.name, template.rootfs_size) == ("sdk", 20)
    await templates.delete(made.template_id)
    with pytest.raises(BadRequestError, match="template not found"):
        await templates.get(made.template_id)


async def test_storages(sdk: AsyncNovitaClient) -> None:
    """Create returns the object; storages can be listed, updated and deleted."""
    storages = sdk.gpu.storages
    made = await storages.create(
        CreateNetworkStorageRequest(cluster_id="us-ca-6", storage_name="data", storage_size=50)
    )
    assert made.storage_id is not None
    assert (made.storage_name, made.storage_size) == ("data", 50)
    await storages.update(
        UpdateNetworkStorageRequest(
            storage_id=made.storage_id, storage_name="more", storage_size=60
        )
    )
    assert [(each.storage_name, each.storage_size) for each in await storages.list()] == [
        ("more", 60)
    ]
    await storages.delete(made.storage_id)
    assert await storages.list() == []


async def test_registries(sdk: AsyncNovitaClient) -> None:
    """A registry auth can be created, found by name and deleted."""
    await sdk.gpu.registries.create("ghcr.io", "me", "secret")
    [mine] = [each for each in await sdk.gpu.registries.list() if each.name == "ghcr.io"]
    await sdk.gpu.registries.delete(mine.id)
    assert len(await sdk.gpu.registries.list()) == 1


async def test_networks(sdk: AsyncNovitaClient) -> None:
    """Networks can be created, read, listed, updated and deleted."""
    networks = sdk.gpu.networks
    made = await networks.create(CreateNetworkRequest(cluster_id="us-ca-6", name="lan"))
    [listed] = await networks.list()
    assert (listed.name, listed.state.state) == ("lan", "creating")
    await networks.update(UpdateNetworkRequest(network_id=listed.id, name="wan"))
    assert (await networks.list())[0].name == "wan"
    await networks.get(listed.id)
    await networks.delete(listed.id)
    assert await networks.list() == []
    assert made is not None


async def test_jobs(sdk: AsyncNovitaClient, url: str) -> None:
    """Saving an image starts a job."""
    await control(url, "/seed", {"names": ["x"]})
    [instance] = await sdk.gpu.instances.list()
    job_id = await sdk.gpu.instances.save_image(
        SaveImageRequest(instance_id=instance.id, image="registry.example.com/x:1")
    )
    [job] = await sdk.gpu.jobs.list()
    assert (job.id, job.type, job.instance_id) == (job_id, "saveImage", instance.id)


async def test_monthly_calls(sdk: AsyncNovitaClient, url: str) -> None:
    """An on-demand instance can become monthly and be renewed."""
    made = await sdk.gpu.instances.create(request(productId="4090.16c62g"))
    await control(url, "/clock", {"advance": 300})
    await sdk.gpu.instances.convert_to_monthly(made.id, 1)
    await sdk.gpu.instances.renew(made.id, 2)
    assert (await sdk.gpu.instances.get(made.id)).billing_mode == "monthly"


async def test_errors_become_the_clients_exceptions(sdk: AsyncNovitaClient, url: str) -> None:
    """Errors with status 400, 404 and 429 raise the client's exceptions."""
    with pytest.raises(BadRequestError, match="insufficient resource"):
        await sdk.gpu.instances.create(request(productId="26"))
    await control(url, "/settings", {"notFoundStatus": 404}, "PATCH")
    with pytest.raises(NotFoundError):
        await sdk.gpu.instances.get("0" * 16)
    await control(url, "/faults", {"kind": "call", "path": "/clusters", "status": 429})
    with pytest.raises(RateLimitError):
        await sdk.gpu.clusters.list()


async def test_the_synchronous_client_works_too(url: str) -> None:
    """The synchronous client can list; a wrong key raises its AuthenticationError."""

    def listed() -> int:
        with NovitaClient(api_key="sdk-key", base_url=url) as client:
            return len(client.gpu.clusters.list())

    assert await asyncio.to_thread(listed) >= 6
    async with serve(EmulatorConfig(port=0, api_key="other")) as guarded:

        def refused() -> None:
            with NovitaClient(api_key="sdk-key", base_url=guarded) as client:
                client.gpu.clusters.list()

        with pytest.raises(AuthenticationError):
            await asyncio.to_thread(refused)

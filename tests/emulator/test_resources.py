# SPDX-License-Identifier: Apache-2.0
"""Templates, registry auths, storages, networks, jobs, prewarming."""

from __future__ import annotations

from typing import cast

from tests.emulator.client import Client, Json

TEMPLATE: Json = {
    "name": "mine",
    "type": "instance",
    "channel": "private",
    "image": "ubuntu:24.04",
    "rootfsSize": 20,
    "ports": [{"type": "http", "ports": [80, 81]}, {"type": "tcp", "ports": [22]}],
    "envs": [{"key": "A", "value": "b"}],
}


async def test_the_template_of_the_examples_is_there(client: Client) -> None:
    """tmpl-12345 has HTTP ports, a TCP port and variables; 107745 has credentials."""
    template = cast("Json", (await client.get("/template", templateId="tmpl-12345"))["template"])
    assert {group["type"] for group in cast("list[Json]", template["ports"])} == {"http", "tcp"}
    assert template["envs"]
    auths = cast("list[Json]", (await client.get("/repository/auths"))["data"])
    private = cast("Json", (await client.get("/template", templateId="107745"))["template"])
    assert private["imageAuth"] in {auth["id"] for auth in auths}


async def test_templates_are_made_changed_and_deleted(client: Client) -> None:
    """Create returns a decimal ID, update replaces the template, and delete removes it."""
    created = await client.post("/template/create", {"template": TEMPLATE})
    template_id = str(created["templateId"])
    assert template_id.isdigit()
    changed = {**TEMPLATE, "Id": template_id, "name": "ours", "ports": []}
    assert await client.post("/template/update", {"template": changed}) == created
    template = cast("Json", (await client.get("/template", templateId=template_id))["template"])
    assert (template["name"], template["ports"]) == ("ours", [])
    assert await client.post("/template/delete", {"templateId": template_id}) == created
    error = await client.refused("/template/delete", {"templateId": template_id})
    assert error["reason"] == "TEMPLATE_NOT_FOUND"


async def test_the_template_list_has_paging_and_channels(client: Client) -> None:
    """The reply has pageSize, pageNum and total; channels are separated by commas."""
    reply = await client.get("/templates", channel="official,private", pageSize=2, pageNum=1)
    assert (reply["pageSize"], reply["pageNum"], reply["total"]) == (2, 1, 4)
    assert len(cast("list[Json]", reply["template"])) == 2


async def test_registry_auths_are_saved_without_telling_an_id(client: Client) -> None:
    """The ID is found by name; an auth in use cannot be deleted; passwords can be masked."""
    body = {"name": "ghcr.io", "username": "me", "password": "s3cret"}
    assert await client.post("/repository/auth/save", body) == {}
    auths = cast("list[Json]", (await client.get("/repository/auths"))["data"])
    mine = next(auth for auth in auths if auth["name"] == "ghcr.io")
    assert mine["password"] == "s3cret"
    await client.control("PATCH", "/settings", {"maskPasswords": True})
    auths = cast("list[Json]", (await client.get("/repository/auths"))["data"])
    assert {auth["password"] for auth in auths} == {"**********"}
    in_use = next(auth for auth in auths if auth["name"] != "ghcr.io")
    error = await client.refused("/repository/auth/delete", {"id": in_use["id"]})
    assert error["reason"] == "IMAGE_AUTH_IN_USE"
    assert await client.post("/repository/auth/delete", {"id": mine["id"]}) == {}


async def test_network_storages_grow_and_are_guarded(client: Client) -> None:
    """Both list paths and both ID names work; each refusal has its own reason."""
    body: Json = {"clusterId": "us-west-1", "storageName": "data", "storageSize": 50}
    storage = await client.post("/networkstorage/create", body)
    assert storage["storageSize"] == 50
    storage_id = storage["storageId"]
    update = {"storageId": storage_id, "storageName": "data", "storageSize": "80"}
    assert await client.post("/networkstorage/update", update) == {}
    error = await client.refused("/networkstorage/update", {**update, "storageSize": 20})
    assert error["reason"] == "VALIDATOR_PARAM"
    error = await client.refused("/networkstorage/create", {**body, "storageSize": 99_999})
    assert (error["reason"], error["metadata"]) == ("NETWORK_STORAGE_TOO_LARGE", {"limit": "10240"})
    error = await client.refused("/networkstorage/create", {**body, "clusterId": "as-in-1"})
    assert error["reason"] == "CUR_CLUSTER_NETWORK_STORAGE_NOT_SUPPORT"
    for path in ("/networkstorages/list", "/networkstorages"):
        reply = await client.get(path)
        assert [row["storageSize"] for row in cast("list[Json]", reply["data"])] == [80]
    instance_id = await client.create(networkStorages=[{"Id": storage_id}], clusterId="us-west-1")
    error = await client.refused("/networkstorage/delete", {"id": storage_id})
    assert error["reason"] == "NETWORK_STORAGE_IN_USE"
    await client.post("/gpu/instance/delete", {"instanceId": instance_id})
    await client.advance(60)
    assert await client.post("/networkstorage/delete", {"id": storage_id}) == {}


async def test_a_created_storage_may_be_a_bare_string(client: Client) -> None:
    """The documentation shows a bare string, a live test showed an object."""
    await client.control("PATCH", "/settings", {"storageCreateReply": "string"})
    response = await client.raw(
        "POST",
        "/networkstorage/create",
        json={"clusterId": "us-west-1", "storageName": "data", "storageSize": 50},
    )
    assert isinstance(response.json(), str)


async def test_networks_become_ready_and_show_their_members(client: Client) -> None:
    """A network is creating, then ready, is listed under both keys, and guarded while in use."""
    made = await client.post("/network/create", {"clusterId": "us-west-1", "name": "lan"})
    network = cast("list[Json]", made["network"])[0]
    assert network["state"] == {"state": "creating", "error": ""}
    await client.advance(10)
    instance_id = await client.create(networkId=network["Id"])
    reply = await client.get("/networks")
    assert reply["network"] == reply["networks"]
    row = cast("list[Json]", reply["networks"])[0]
    assert cast("Json", row["state"])["state"] == "ready"
    assert [each["Id"] for each in cast("list[Json]", row["Addresses"])] == [instance_id]
    error = await client.refused("/network/delete", {"networkId": network["Id"]})
    assert error["reason"] == "NETWORK_IN_USE"
    await client.post("/network/update", {"networkId": network["Id"], "name": "wan"})
    shown = await client.get("/network", networkId=str(network["Id"]))
    assert cast("list[Json]", shown["network"])[0]["name"] == "wan"
    other = await client.post("/network/create", {"clusterId": "us-west-1"})
    other_id = cast("list[Json]", other["network"])[0]["Id"]
    assert await client.post("/network/delete", {"networkId": other_id}) == {}


async def test_saving_an_image_is_a_job_that_can_be_broken_off(client: Client) -> None:
    """A saving job can be cancelled, which ends it in `break`; a migration job cannot."""
    instance_id = await client.running()
    body = {"instanceId": instance_id, "image": "registry.example.com/team/saved:1"}
    job_id = (await client.post("/job/save/image", body))["jobId"]
    assert await job_state(client, job_id) == "pulling"
    await client.advance(100)
    assert await job_state(client, job_id) == "success"
    job_id = (await client.post("/job/save/image", body))["jobId"]
    assert (await client.refused("/job/save/image", body))["message"] == "invalid state change"
    assert await client.post("/job/break", {"jobId": job_id}) == {"jobId": job_id}
    assert await job_state(client, job_id) == "break"
    job_id = (await client.post("/gpu/instance/migrate", {"instanceId": instance_id}))["jobId"]
    error = await client.refused("/job/break", {"jobId": job_id})
    assert error["reason"] == "MIGRATION_JOB_NOT_BREAKABLE"
    assert (await client.refused("/job/break", {"job_id": job_id}))["reason"] == "VALIDATOR_PARAM"


async def job_state(client: Client, job_id: object) -> object:
    """Return the state of a job."""
    jobs = cast("list[Json]", (await client.get("/jobs", jobId=str(job_id)))["jobs"])
    return cast("Json", jobs[0]["state"])["state"]


async def test_images_are_prewarmed(client: Client) -> None:
    """A task becomes Succeeded; its note can be edited, and it can be deleted."""
    made = await client.post(
        "/image/prewarm",
        {"imageUrl": "a/b/c:1", "clusterId": "us-ca-6", "productIds": ["4090.16c62g"]},
    )
    row = await prewarm_row(client)
    assert (row["state"], row["imageName"]) == ("Pending", "c")
    await client.post("/image/prewarm/edit", {"id": made["id"], "note": "soon"})
    await client.advance(300)
    row = await prewarm_row(client)
    assert (row["state"], row["note"]) == ("Succeeded", "soon")
    assert (await client.get("/image/prewarm/quota"))["total"] == 1
    await client.post("/image/prewarm/delete", {"ids": [made["id"]]})
    assert (await client.get("/image/prewarm"))["total"] == 0


async def prewarm_row(client: Client) -> Json:
    """Return the only prewarm task."""
    return cast("list[Json]", (await client.get("/image/prewarm"))["data"])[0]

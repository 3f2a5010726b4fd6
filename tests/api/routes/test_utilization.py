# SPDX-License-Identifier: Apache-2.0
"""Tests of the HTTP side of utilization."""

from __future__ import annotations

import pytest

from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from tests.api.client import Http
from tests.lifecycle.actions import fault
from tests.lifecycle.world import World


async def test_utilization_over_http(world: World, http: Http) -> None:
    """200 with five series; 502 if Novita fails; the answer has no text from Novita."""
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    upstream_id = (await world.view(instance_id))["upstreamId"]
    levels = {"gpu": 3.5, "gpuMemory": 40, "cpu": 12.5, "memory": 30, "disk": None}
    await world.emulator.call("POST", f"instances/{upstream_id}/utilization", json=levels)
    await world.pass_time(120, step=60)
    path = f"/api/instances/{instance_id}/utilization"
    found = (await http.call("GET", f"{path}?interval=60", scope=Scope.READ)).json()
    assert set(found) == {"gpu", "gpuMemory", "cpu", "memory", "disk"}
    assert {"at", "percent"} == set(found["gpu"][-1])
    assert found["gpu"][-1]["percent"] == 3.5
    await fault(world, kind="call", path="*metrics/gpu/instance", status=500)
    failed = await http.call("GET", path, scope=Scope.READ)
    assert (failed.status_code, failed.json()["error"]["code"]) == (502, "EXTERNAL_API_ERROR")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("from=yesterday", "from"),
        ("to=2023-10-20", "to"),
        ("interval=14", "interval"),
        ("interval=86401", "interval"),
        ("from=2023-10-20T10:00:00Z&to=2023-10-20T10:00:00Z", "from"),
        ("begin=2023-10-20T10:00:00Z", "begin"),
    ],
)
async def test_wrong_windows_are_refused(world: World, http: Http, query: str, field: str) -> None:
    """400 names the parameter as it is sent."""
    answer = await http.call("GET", f"/api/instances/inst_1/utilization?{query}")
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["error"]["details"]] == [field]


async def test_an_unknown_instance(http: Http) -> None:
    """404 INSTANCE_NOT_FOUND."""
    answer = await http.call("GET", "/api/instances/inst_1/utilization")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "INSTANCE_NOT_FOUND")

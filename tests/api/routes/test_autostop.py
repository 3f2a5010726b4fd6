# SPDX-License-Identifier: Apache-2.0
"""Tests of the HTTP side of auto-stop."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.application import CREATE
from tests.api.client import ApiProcess

DEFAULTS = {
    "signals": ["lastUsed", "gpu"],
    "gpuBelowPercent": 5,
    "action": "stop",
    "warnMinutes": 5,
    "state": "armed",
}


async def test_auto_stop_of_a_create_and_of_a_patch(api_process: ApiProcess) -> None:
    """The view shows the setting with its defaults; a patch changes fields, and null removes it."""
    body = {**CREATE, "autoStop": {"idleMinutes": 60, "signals": ["gpu", "lastUsed"]}}
    created = (await api_process.call("POST", "/api/instances", body=body)).json()
    path = f"/api/instances/{created['instanceId']}"
    shown = (await api_process.call("GET", path)).json()
    assert shown["autoStop"] == {"idleMinutes": 60, **DEFAULTS}
    patch: dict[str, Any] = {"autoStop": {"gpuBelowPercent": 12.5, "action": "delete"}}
    changed = await api_process.call("PATCH", path, body=patch)
    assert changed.json()["autoStop"] == {
        "idleMinutes": 60,
        **DEFAULTS,
        "gpuBelowPercent": 12.5,
        "action": "delete",
    }
    patch = {"autoStop": {"gpuBelowPercent": None}}
    changed = await api_process.call("PATCH", path, body=patch)
    assert changed.json()["autoStop"]["gpuBelowPercent"] == 5
    assert "autoStop" not in (await api_process.call("PATCH", path, body={"autoStop": None})).json()
    refused = await api_process.call("PATCH", path, body={"autoStop": {"warnMinutes": 1}})
    assert refused.status_code == 400
    assert refused.json()["error"]["details"][0]["field"] == "autoStop.idleMinutes"


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({}, "idleMinutes"),
        ({"idleMinutes": 4}, "idleMinutes"),
        ({"idleMinutes": 10_081}, "idleMinutes"),
        ({"idleMinutes": "60"}, "idleMinutes"),
        ({"idleMinutes": 60, "signals": []}, "signals"),
        ({"idleMinutes": 60, "signals": ["cpu"]}, "signals"),
        ({"idleMinutes": 60, "signals": "gpu"}, "signals"),
        ({"idleMinutes": 60, "gpuBelowPercent": 0}, "gpuBelowPercent"),
        ({"idleMinutes": 60, "gpuBelowPercent": 101}, "gpuBelowPercent"),
        ({"idleMinutes": 60, "action": "pause"}, "action"),
        ({"idleMinutes": 60, "warnMinutes": -1}, "warnMinutes"),
        ({"idleMinutes": 60, "idle": 60}, "idle"),
        ({"idleMinutes": 60, "action": None}, "action"),
    ],
)
async def test_wrong_settings_are_refused(
    api_process: ApiProcess, wrong: dict[str, Any], field: str
) -> None:
    """400 VALIDATION_ERROR names the field of `autoStop`, and nothing is created."""
    answer = await api_process.call("POST", "/api/instances", body={**CREATE, "autoStop": wrong})
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert [one["field"] for one in error["details"]] == [f"autoStop.{field}"]
    listed = (await api_process.call("GET", "/api/instances")).json()
    assert listed["total"] == 0

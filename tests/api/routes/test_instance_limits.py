# SPDX-License-Identifier: Apache-2.0
"""Limits, protection and `keep` over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from novitai.api.schemas.instances import (
    ChangeInstanceRequest,
    CreateInstanceRequest,
)
from novitai.api.schemas.wire import read
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.limits import LimitSettings
from novitai.errors import FieldError, ValidationFailed
from tests.api.client import ApiProcess
from tests.lifecycle.world import on_both_stores

CREATE = {"name": "my-instance", "productName": "gpu-basic", "templateId": "tmpl-12345"}


async def running(api_process: ApiProcess, **body: Any) -> str:
    """Have an instance that runs, and change it; return its ID."""
    now = api_process.clock.now()
    instance_id = await api_process.have(
        InstanceStatus.RUNNING, started_at=now, obs_run_began_at=now, ever_ran=True
    )
    answer = await api_process.call("PATCH", f"/api/instances/{instance_id}", body=body)
    assert answer.status_code == 200, answer.text
    return instance_id


async def view(api_process: ApiProcess, instance_id: str) -> dict[str, Any]:
    """Return the view of an instance."""
    shown: dict[str, Any] = (await api_process.call("GET", f"/api/instances/{instance_id}")).json()
    TypeAdapter(InstanceDetails).validate_python(shown)
    return shown


async def test_the_view_has_limits_and_a_protection(api_process: ApiProcess) -> None:
    """And what is going to stop the instance, and when."""
    limits = {
        "maxRunMinutes": 180,
        "stopAt": iso(api_process.clock.now() + 7_200_000),
        "onLimit": "delete",
        "deleteAfterStoppedMinutes": 1440,
    }
    shown = await view(
        api_process, await running(api_process, limits=limits, protected={"reason": "results"})
    )
    assert shown["limits"] == limits
    assert shown["protected"] == {"reason": "results"}
    assert (shown["stopsAt"], shown["stopReason"]) == (limits["stopAt"], "stopAt")
    plain = await view(api_process, await running(api_process, limits={}))
    assert not {"limits", "protected", "stopsAt", "stopReason", "unenforced"} & set(plain)


def test_a_create_takes_limits_and_a_protection() -> None:
    """They are part of the request; an empty object sets none."""
    body = {**CREATE, "limits": {"maxRunMinutes": 5}, "protected": {"reason": "results"}}
    wanted = read(CreateInstanceRequest, body, now=0, allow_private=False).wanted()
    assert wanted.limits == LimitSettings(max_run_minutes=5)
    assert wanted.protected_reason == "results"
    empty = read(CreateInstanceRequest, {**CREATE, "limits": {}}, now=0, allow_private=False)
    assert empty.wanted().limits is None


@pytest.mark.parametrize(
    ("limits", "field", "message"),
    [
        ({"maxRunMinutes": 0}, "limits.maxRunMinutes", "must be at least 1"),
        ({"maxRunMinutes": "60"}, "limits.maxRunMinutes", "must be an integer"),
        ({"stopAt": "2001-01-01T00:00:00Z"}, "limits.stopAt", "must be in the future"),
        ({"stopAt": "tomorrow"}, "limits.stopAt", "must be an ISO-8601 time"),
        ({"onLimit": "explode"}, "limits.onLimit", "must be 'stop' or 'delete'"),
        ({"deleteAfterStoppedMinutes": 1.5}, "limits.deleteAfterStoppedMinutes", "an integer"),
        ({"maxSpend": 0}, "limits.maxSpend", "must be at least 0.01"),
        ({"budget": 5}, "limits.budget", "Unknown field"),
        ({"maxRunMinute": 5}, "limits.maxRunMinute", "did you mean 'limits.maxRunMinutes'"),
        ([], "limits", "must be an object"),
    ],
)
@pytest.mark.parametrize("model", [CreateInstanceRequest, ChangeInstanceRequest])
def test_wrong_limits_are_named(
    model: type[CreateInstanceRequest | ChangeInstanceRequest],
    limits: object,
    field: str,
    message: str,
) -> None:
    """A limit that is not enforced must not be accepted."""
    body = {"limits": limits} if model is ChangeInstanceRequest else {**CREATE, "limits": limits}
    now = 1_760_000_000_000
    with pytest.raises(ValidationFailed) as wrong:
        read(model, body, now=now, allow_private=False)
    assert wrong.value.code == "VALIDATION_ERROR"
    [detail] = wrong.value.details or ()
    assert isinstance(detail, FieldError)
    assert detail.field == field
    assert message in detail.message


@on_both_stores
async def test_a_patch_changes_limits(api_process: ApiProcess) -> None:
    """Sent limits are set, `null` removes one or all, and `stopsAt` follows."""
    instance_id = await running(api_process, limits={"maxRunMinutes": 90})
    stop_at = iso(api_process.clock.now() + 3_600_000)
    path = f"/api/instances/{instance_id}"
    changed = await api_process.call("PATCH", path, body={"limits": {"stopAt": stop_at}})
    assert changed.status_code == 200
    assert changed.json()["limits"] == {"maxRunMinutes": 90, "stopAt": stop_at, "onLimit": "stop"}
    assert changed.json()["stopsAt"] == stop_at
    fewer = await api_process.call("PATCH", path, body={"limits": {"maxRunMinutes": None}})
    assert fewer.json()["limits"] == {"stopAt": stop_at, "onLimit": "stop"}
    none = await api_process.call("PATCH", path, body={"limits": None})
    assert not {"limits", "stopsAt"} & set(none.json())
    late = await api_process.call(
        "PATCH", path, body={"limits": {"stopAt": "2001-01-01T00:00:00Z"}}
    )
    assert late.status_code == 400


async def test_a_protection_refuses_deletes_until_it_is_removed(api_process: ApiProcess) -> None:
    """By ID, by name, and with another reason."""
    instance_id = await running(api_process, protected={"reason": "results"})
    path = f"/api/instances/{instance_id}"
    for method, at, body in (
        ("DELETE", path, None),
        ("POST", "/api/instances/delete", {"instanceName": "my-instance"}),
    ):
        refused = await api_process.call(method, at, body=body)
        assert refused.status_code == 409
        assert refused.json()["error"]["code"] == "INSTANCE_PROTECTED"
    assert (
        await api_process.call("PATCH", path, body={"protected": {"reason": ""}})
    ).status_code == 400
    assert (await api_process.call("PATCH", path, body={"protected": None})).status_code == 200
    assert (await api_process.call("DELETE", path)).status_code == 202


async def test_keep_answers_with_the_new_time(api_process: ApiProcess) -> None:
    """`POST .../keep` needs `write`, moves `stopsAt`, and names its actor."""
    instance_id = await running(api_process, limits={"maxRunMinutes": 60})
    path = f"/api/instances/{instance_id}/keep"
    before = (await view(api_process, instance_id))["stopsAt"]
    assert (await api_process.call("POST", path, body={"minutes": 0})).status_code == 400
    refused = await api_process.call("POST", path, body={"minutes": 5}, scope=Scope.READ)
    assert refused.status_code == 403
    kept = await api_process.call("POST", path, body={"minutes": 30})
    assert kept.status_code == 200
    assert kept.json()["stopsAt"] > before
    assert kept.json()["stopsAt"] == (await view(api_process, instance_id))["stopsAt"]
    events = (await api_process.call("GET", f"/api/instances/{instance_id}/events")).json()[
        "events"
    ]
    [event] = [one for one in events if one["type"] == "instance.kept"]
    assert event["data"]["minutes"] == 30
    assert set(event["actor"]) == {"keyId", "name"}
    missing = await api_process.call("POST", "/api/instances/inst_0_nope/keep", body={"minutes": 5})
    assert missing.status_code == 404

# SPDX-License-Identifier: Apache-2.0
"""The view of an instance, which contains no secrets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from novitai.domain.actor import Actor
from novitai.domain.billing import Cost
from novitai.domain.idle import AutoStop
from novitai.domain.instance import (
    BillingMode,
    InstanceError,
    InstanceStatus,
    Observed,
    Origin,
    PortMapping,
)
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.limits import LimitSettings, StopReason
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.progress import Progress
from novitai.domain.view import view
from novitai.testing import an_instance
from novitai.urls import masked_login
from tests.domain.making import AT

ALL = an_instance(
    product_id="gpu-basic.8c32g",
    billing_mode=BillingMode.SPOT,
    hourly_price=0.6,
    max_hourly_price=1.0,
    webhook_url="https://user:hunter2@hooks.example/x?y=1",
    ready_at=AT + 1,
    started_at=AT + 2,
    stopped_at=AT + 3,
    terminated_at=AT + 4,
    last_used_at=AT + 5,
    tags={"team": "vision"},
    created_by=Actor("key_1", "ci"),
    error=InstanceError("NO_CAPACITY", "None left", AT + 6),
    observed=Observed(
        status="running",
        at=AT + 7,
        port_mappings=(PortMapping(22, "gpu.example:2222", "tcp"),),
        ssh="ssh://root@gpu.example:2222",
        jupyter="https://gpu.example:8888",
        web_terminal="https://gpu.example:7681",
        spot_reclaim_at=AT + 9,
    ),
)
OPERATION = Operation(
    "op_1", OperationKind.START, ALL.id, "ask", AT, AT, progress=Progress(known_error="hunter2")
)


def test_everything_that_is_known_is_shown() -> None:
    """The view has every field of the contract, in camelCase, with times in UTC."""
    assert view(ALL, OPERATION, AT + 8) == {
        "id": "inst_1760000000_abc123def456",
        "name": "my-instance",
        "status": "running",
        "gpuNum": 2,
        "region": "US-WEST-01",
        "portMappings": [{"port": 22, "endpoint": "gpu.example:2222", "type": "tcp"}],
        "connectionDetails": {
            "ssh": "ssh://root@gpu.example:2222",
            "jupyter": "https://gpu.example:8888",
            "webTerminal": "https://gpu.example:7681",
        },
        "createdAt": "2025-10-09T08:53:20.000Z",
        "readyAt": "2025-10-09T08:53:20.001Z",
        "productName": "gpu-basic",
        "productId": "gpu-basic.8c32g",
        "templateId": "tmpl-12345",
        "rootfsSize": 80,
        "billingMode": "spot",
        "hourlyPrice": 0.6,
        "tags": {"team": "vision"},
        "createdBy": {"keyId": "key_1", "name": "ci"},
        "webhookUrl": "https://***@hooks.example/x?y=1",
        "startedAt": "2025-10-09T08:53:20.002Z",
        "stoppedAt": "2025-10-09T08:53:20.003Z",
        "lastUsedAt": "2025-10-09T08:53:20.005Z",
        "spotReclaimAt": "2025-10-09T08:53:20.009Z",
        "upstreamId": "up-1",
        "upstreamStatus": "running",
        "operation": {"id": "op_1", "kind": "start", "phase": "ask"},
        "error": {
            "code": "NO_CAPACITY",
            "message": "None left",
            "at": "2025-10-09T08:53:20.006Z",
        },
        "observedAt": "2025-10-09T08:53:20.008Z",
    }


@pytest.mark.parametrize("status", InstanceStatus)
def test_every_declared_field_is_rendered_and_no_other(status: InstanceStatus) -> None:
    """A view fits its declaration; if everything is known, it has every declared field."""
    whole = replace(
        ALL,
        status=status,
        origin=Origin.ADOPTED,
        limits=LimitSettings(max_spend=1, max_run_minutes=1, stop_at=AT),
        protected_reason="trains",
        stops_at=AT,
        stop_reason=StopReason.STOP_AT,
        auto_stop=AutoStop(30),
        auto_stops_at=AT,
        unenforced=True,
    )
    fits = TypeAdapter(InstanceDetails).validate_json
    shown = view(whole, OPERATION, AT + 8, Cost(1.0, 1, 2, AT))
    fits(orjson.dumps(shown), strict=True)
    ended = {"upstreamStatus", "stopsAt", "unenforced"} if status.ended else set()
    assert set(shown) == set(InstanceDetails.__annotations__) - ended
    adopted = replace(whole, template_id="", rootfs_size=0, created_by=None)
    fits(orjson.dumps(view(adopted, None)), strict=True)


def test_what_is_not_known_is_left_out() -> None:
    """Absent values are omitted, never null; `portMappings` and `tags` are always present."""
    shown = view(an_instance(upstream_id=None), None)
    assert set(shown) == {
        *("id", "name", "status", "gpuNum", "region", "portMappings", "createdAt"),
        *("productName", "templateId", "rootfsSize", "billingMode", "tags"),
    }
    assert shown["portMappings"] == []


@pytest.mark.parametrize("field", ["ssh", "jupyter", "web_terminal"])
def test_one_way_in_is_enough(field: str) -> None:
    """Absent connections are omitted; without any there are no connection details."""
    ways: dict[str, Any] = {"ssh": "", "jupyter": "", "web_terminal": "", field: "x://y"}
    details = view(an_instance(observed=Observed(**ways)), None)["connectionDetails"]
    name = {"web_terminal": "webTerminal"}.get(field, field)
    assert details == {name: "x://y"}
    assert "connectionDetails" not in view(an_instance(observed=Observed(ssh="")), None)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://hooks.example/x", "https://hooks.example/x"),
        ("https://user@hooks.example/x", "https://***@hooks.example/x"),
        ("https://u:p@h.example:8443/x?a=b#c", "https://***@h.example:8443/x?a=b#c"),
        ("http://u:p@w@[2001:db8::1]:80/", "http://***@[2001:db8::1]:80/"),
        ("https://h.example/a@b?c=d@e", "https://h.example/a@b?c=d@e"),
    ],
)
def test_a_url_is_shown_without_who_logs_in(url: str, shown: str) -> None:
    """User name and password are removed; the rest of the URL stays."""
    assert masked_login(url) == shown


@given(
    user=st.text("abcXYZ019-._~%", min_size=1),
    password=st.text("abcXYZ019-._~%:@!$&'()*+,;=", min_size=8),
)
def test_no_password_comes_through(user: str, password: str) -> None:
    """No password is shown, in any characters."""
    masked = masked_login(f"https://{user}:{password}@hooks.example/x")
    assert masked == "https://***@hooks.example/x"

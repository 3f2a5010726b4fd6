# SPDX-License-Identifier: Apache-2.0
"""Tests of the HTTP side of budgets."""

from __future__ import annotations

from typing import Any

import pytest

from novitai.domain.api_key import Scope
from tests.api.application import CREATE
from tests.api.client import ApiProcess

BODY: dict[str, Any] = {"name": "Vision team", "amount": 12.5, "period": "month"}


async def made(api_process: ApiProcess, **given: Any) -> dict[str, Any]:
    """Create a budget; return it."""
    answer = await api_process.call(
        "POST", "/api/budgets", scope=Scope.ADMIN, body={**BODY, **given}
    )
    assert answer.status_code == 201, answer.text
    shown: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"/api/budgets/{shown['id']}"
    return shown


async def test_a_budget_is_made_read_changed_and_deleted(api_process: ApiProcess) -> None:
    """Defaults are shown, `null` restores them, and a deleted budget is unknown."""
    shown = await made(api_process)
    assert shown["amount"] == shown["remaining"] == 12.5
    assert (shown["spent"], shown["reserved"]) == (0, 0)
    assert (shown["tz"], shown["scope"], shown["onLimit"]) == ("UTC", {}, "alert")
    assert shown["alertAt"] == [50, 80, 100]
    assert shown["periodStart"] < shown["periodEnd"]
    path = f"/api/budgets/{shown['id']}"
    assert (await api_process.call("GET", path, scope=Scope.READ)).json() == shown
    listed = (await api_process.call("GET", "/api/budgets", scope=Scope.READ)).json()
    assert listed == {"budgets": [shown]}
    change = {
        "name": "CI",
        "amount": 3,
        "period": "total",
        "tz": "Europe/Berlin",
        "scope": {"tag": {"name": "team", "value": "vision"}},
        "alertAt": [90, 10],
        "onLimit": "refuse",
    }
    changed = (await api_process.call("PATCH", path, scope=Scope.ADMIN, body=change)).json()
    assert {name: changed[name] for name in change} == {**change, "alertAt": [10, 90]}
    assert changed["periodStart"] == shown["createdAt"]
    assert "periodEnd" not in changed
    plain = {"tz": None, "scope": None, "alertAt": None, "onLimit": None}
    restored = (await api_process.call("PATCH", path, scope=Scope.ADMIN, body=plain)).json()
    assert {name: restored[name] for name in plain} == {name: shown[name] for name in plain}
    assert (await api_process.call("DELETE", path, scope=Scope.ADMIN)).json() == restored
    for method in ("GET", "DELETE"):
        gone = await api_process.call(method, path, scope=Scope.ADMIN)
        assert (gone.status_code, gone.json()["error"]["code"]) == (404, "BUDGET_NOT_FOUND")


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"name": " "}, "name"),
        ({"amount": 0}, "amount"),
        ({"amount": "5"}, "amount"),
        ({"period": "year"}, "period"),
        ({"tz": "Mars/Olympus"}, "tz"),
        ({"onLimit": "delete"}, "onLimit"),
        ({"alertAt": [0]}, "alertAt"),
        ({"alertAt": [50, 50]}, "alertAt"),
        ({"alertAt": [True]}, "alertAt"),
        ({"alertAt": 50}, "alertAt"),
        ({"scope": {"keyId": "key_1", "tag": {"name": "a", "value": "b"}}}, "scope"),
        ({"scope": {"team": "vision"}}, "scope.team"),
        ({"scope": {"tag": {"name": "A", "value": "b"}}}, "scope.tag"),
        ({"scope": {"tag": {"name": "a"}}}, "scope.tag"),
    ],
)
async def test_a_wrong_budget_is_refused(
    api_process: ApiProcess, given: dict[str, Any], field: str
) -> None:
    """400 with the field; a budget that cannot be enforced is not accepted."""
    answer = await api_process.call(
        "POST", "/api/budgets", scope=Scope.ADMIN, body={**BODY, **given}
    )
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["error"]["details"]] == [field]


async def test_changing_budgets_needs_an_admin_key(api_process: ApiProcess) -> None:
    """A key with `write` may only read them."""
    path = f"/api/budgets/{(await made(api_process))['id']}"
    for method, place in (("POST", "/api/budgets"), ("PATCH", path), ("DELETE", path)):
        answer = await api_process.call(method, place, scope=Scope.WRITE, body=BODY)
        assert answer.status_code == 403


async def test_a_create_beyond_a_budget_is_refused(api_process: ApiProcess) -> None:
    """409 with the budget and its amounts, and the quote says so before."""
    budget = await made(api_process, amount=0.01, onLimit="refuse")
    quote = (await api_process.call("POST", "/api/quotes", body=CREATE)).json()
    assert quote["budgets"] == [{"id": budget["id"], "remaining": 0.01, "allows": False}]
    refused = await api_process.call("POST", "/api/instances", body=CREATE)
    assert refused.status_code == 409
    error = refused.json()["error"]
    assert (error["code"], error["retryable"]) == ("BUDGET_EXCEEDED", False)
    assert error["details"] == {
        "budget": budget["id"],
        "limit": 0.01,
        "spent": 0,
        "reserved": 0,
        "remaining": 0.01,
    }

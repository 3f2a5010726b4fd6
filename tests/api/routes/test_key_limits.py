# SPDX-License-Identifier: Apache-2.0
"""Limits of API keys over HTTP: who may move what of which instance."""

from __future__ import annotations

from typing import Any

import httpx2
import orjson
import pytest
from pydantic import TypeAdapter

from novitai.api.schemas.keys import CreateKeyResponse, ListKeysResponse
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.instance import InstanceStatus
from novitai.domain.limits import InheritedLimits, LimitSettings
from novitai.store.queries import instances
from tests.api.application import CREATE
from tests.api.client import ApiProcess
from tests.lifecycle.world import on_both_stores

MINUTE = 60_000
LIMITS: dict[str, Any] = {
    "maxInstances": 3,
    "maxHourlyPrice": 2.5,
    "maxRunMinutes": 60,
    "budget": {"amount": 20, "period": "day"},
}
ACTORS = ("same", "limited", "write", "admin")
"""The acting keys: the one that created the instance, another one with limits, one without, and
one with the scope `admin`."""


class Keys:
    """Requests with the key that created the instances, and with others."""

    def __init__(self, api_process: ApiProcess) -> None:
        self.api_process = api_process
        self.ids: dict[str, str] = {}
        self.texts: dict[str, str] = {}

    @classmethod
    async def made(cls, api_process: ApiProcess) -> Keys:
        """Create the two keys with limits."""
        keys = cls(api_process)
        for name in ("same", "limited"):
            made = await create_key(api_process, limits={"maxRunMinutes": 60})
            keys.ids[name], keys.texts[name] = made["id"], made["key"]
        return keys

    async def call(self, name: str, method: str, path: str, body: object) -> httpx2.Response:
        """Send a request with one of the keys."""
        if name in self.texts:
            headers = {"Authorization": f"Bearer {self.texts[name]}"}
            return await self.api_process.call(method, path, scope=None, headers=headers, body=body)
        scope = Scope.ADMIN if name == "admin" else Scope.WRITE
        return await self.api_process.call(method, path, scope=scope, body=body)

    async def running(self, limits: LimitSettings | None = None, **more: Any) -> str:
        """Have a running instance of the key `same`, which began to run now."""
        now = self.api_process.clock.now()
        own = instances.dump_limits(limits)
        inherited = instances.dump_inherited(InheritedLimits(max_run_minutes=60))
        given: dict[str, Any] = {
            "started_at": now,
            "obs_run_began_at": now,
            "ever_ran": True,
            "limits": own,
            "created_by_key_id": self.ids["same"],
            "created_by_name": "ci",
            "inherited_limits": inherited,
        }
        return await self.api_process.have(InstanceStatus.RUNNING, **{**given, **more})

    async def stops(self, instance_id: str) -> tuple[int | None, str | None]:
        """Return in how many minutes the instance is stopped, and why."""
        shown = (await self.api_process.call("GET", f"/api/instances/{instance_id}")).json()
        now = self.api_process.clock.now()
        minutes = next(
            (n for n in range(2_000) if iso(now + n * MINUTE) == shown.get("stopsAt")), 0
        )
        return minutes or None, shown.get("stopReason")


async def create_key(api_process: ApiProcess, **given: Any) -> dict[str, Any]:
    """Create a key; return the response."""
    body = {"name": "ci", "scopes": ["read", "write"], **given}
    answer = await api_process.call("POST", "/api/keys", scope=Scope.ADMIN, body=body)
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    TypeAdapter(CreateKeyResponse).validate_python(made)
    return made


def refused(answer: httpx2.Response) -> dict[str, Any]:
    """Return the details of a refusal by a limit of a key."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (409, "KEY_LIMIT_EXCEEDED"), answer.text
    assert error["retryable"] is False
    details: dict[str, Any] = error["details"]
    return details


@on_both_stores
async def test_a_key_is_shown_with_its_limits(api_process: ApiProcess) -> None:
    """When it is created and in the list; an empty object sets none."""
    made = await create_key(api_process, limits=LIMITS)
    assert made["limits"] == LIMITS
    assert "limits" not in await create_key(api_process, limits={})
    answer = await api_process.call("GET", "/api/keys", scope=Scope.ADMIN)
    TypeAdapter(ListKeysResponse).validate_python(answer.json())
    shown = {key["id"]: key.get("limits") for key in answer.json()["keys"]}
    assert [one for one in shown.values() if one] == [LIMITS]
    assert shown[made["id"]] == LIMITS


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"limits": []}, "limits"),
        ({"limits": None}, "limits"),
        ({"limits": {"maxInstances": 0}}, "limits.maxInstances"),
        ({"limits": {"maxInstances": True}}, "limits.maxInstances"),
        ({"limits": {"maxHourlyPrice": 0}}, "limits.maxHourlyPrice"),
        ({"limits": {"maxRunMinutes": 525_601}}, "limits.maxRunMinutes"),
        ({"limits": {"budget": 20}}, "limits.budget"),
        ({"limits": {"budget": {"amount": 20}}}, "limits.budget"),
        ({"limits": {"budget": {"amount": 0, "period": "day"}}}, "limits.budget"),
        ({"limits": {"budget": {"amount": 1, "period": "year"}}}, "limits.budget"),
        ({"limits": {"maxGpus": 1}}, "limits.maxGpus"),
        ({"limits": {"maxInstances": 1}, "scopes": ["admin"]}, "limits"),
    ],
)
async def test_wrong_limits_are_refused(
    api_process: ApiProcess, given: dict[str, Any], field: str
) -> None:
    """400 with the field; an `admin` key has no limits, because it could lift them."""
    body = {"name": "ci", "scopes": ["write"], **given}
    answer = await api_process.call("POST", "/api/keys", scope=Scope.ADMIN, body=body)
    assert answer.status_code == 400
    assert [one["field"] for one in answer.json()["error"]["details"]] == [field]


async def test_a_key_with_limits_makes_no_keys(api_process: ApiProcess) -> None:
    """So it cannot make one that has fewer limits; nor change budgets."""
    keys = await Keys.made(api_process)
    body = {"name": "free", "scopes": ["write"]}
    assert (await keys.call("same", "POST", "/api/keys", body)).status_code == 403
    assert (await keys.call("same", "POST", "/api/budgets", {})).status_code == 403


async def test_the_budget_of_a_key_is_listed_and_fixed(api_process: ApiProcess) -> None:
    """It is read as a budget, and neither changed nor deleted."""
    made = await create_key(api_process, limits={"budget": {"amount": 20, "period": "day"}})
    [shown] = (await api_process.call("GET", "/api/budgets", scope=Scope.READ)).json()["budgets"]
    assert (shown["scope"], shown["keyLimit"]) == ({"keyId": made["id"]}, True)
    assert (shown["amount"], shown["period"], shown["onLimit"]) == (20, "day", "stop")
    for method, body in (("PATCH", {"amount": 1_000}), ("DELETE", None)):
        path = f"/api/budgets/{shown['id']}"
        answer = await api_process.call(method, path, scope=Scope.ADMIN, body=body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "INVALID_STATE")
    assert (await api_process.call("GET", path, scope=Scope.READ)).json() == shown


async def test_a_create_beyond_a_limit_is_refused(api_process: ApiProcess) -> None:
    """409 with the key, the limit and the numbers, and the quote says so before."""
    made = await create_key(api_process, limits={"maxInstances": 1})
    headers = {"Authorization": f"Bearer {made['key']}"}

    async def send(path: str) -> httpx2.Response:
        return await api_process.call("POST", path, scope=None, headers=headers, body=CREATE)

    assert (await send("/api/instances")).status_code == 201
    quote = (await send("/api/quotes")).json()
    assert quote["keyLimits"] == [
        {"limit": "maxInstances", "allowed": 1, "wanted": 2, "allows": False}
    ]
    assert refused(await send("/api/instances")) == {
        "key": made["id"],
        "limit": "maxInstances",
        "allowed": 1,
        "wanted": 2,
    }
    assert "keyLimits" not in (await api_process.call("POST", "/api/quotes", body=CREATE)).json()


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize(
    ("own", "minutes", "result"),
    [
        (LimitSettings(max_run_minutes=30), 30, (60, "maxRunMinutes")),
        (LimitSettings(max_run_minutes=30), 31, (61, "maxRunMinutes")),
        (LimitSettings(max_run_minutes=60), 1, (61, "maxRunMinutes")),
        (None, 10, (70, "keyLimit")),
    ],
)
async def test_keep_and_the_longest_run(
    api_process: ApiProcess,
    actor: str,
    own: LimitSettings | None,
    minutes: int,
    result: tuple[int, str],
) -> None:
    """Any key keeps an instance within the limit of its key, and only an admin key beyond it."""
    keys = await Keys.made(api_process)
    instance_id = await keys.running(own)
    path = f"/api/instances/{instance_id}/keep"
    answer = await keys.call(actor, "POST", path, {"minutes": minutes})
    if result[0] > 60 and actor != "admin":
        details = {"key": keys.ids["same"], "limit": "maxRunMinutes", "allowed": 60}
        assert refused(answer) == details
        answer = await keys.call("admin", "POST", path, {"minutes": minutes})
    assert answer.status_code == 200, answer.text
    assert await keys.stops(instance_id) == result
    # An admin key grants those minutes alone.
    assert (await keys.call("same", "POST", path, {"minutes": 1_000})).status_code == 409


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize(
    ("limits", "result"),
    [
        ({"maxRunMinutes": 60}, (60, "maxRunMinutes")),
        ({"maxRunMinutes": 61}, (61, "maxRunMinutes")),
        ({"maxRunMinutes": None}, (60, "keyLimit")),
        ({"stopAt": 60}, (60, "stopAt")),
        ({"stopAt": 61}, (61, "stopAt")),
        ({"maxRunMinutes": 61, "stopAt": 62}, (61, "maxRunMinutes")),
        (None, (60, "keyLimit")),
    ],
)
async def test_a_patch_and_the_longest_run(
    api_process: ApiProcess,
    actor: str,
    limits: dict[str, int | None] | None,
    result: tuple[int, str],
) -> None:
    """Any key changes limits within that of the key, and only an admin key beyond it."""
    keys = await Keys.made(api_process)
    instance_id = await keys.running(LimitSettings(max_run_minutes=90))
    path, now = f"/api/instances/{instance_id}", api_process.clock.now()
    if limits is not None and "maxRunMinutes" not in limits:
        await keys.call("same", "PATCH", path, {"limits": {"maxRunMinutes": None}})
    sent: dict[str, Any] | None = None
    if limits is not None:
        sent = {**limits}
        if limits.get("stopAt"):
            sent["stopAt"] = iso(now + (limits["stopAt"] or 0) * MINUTE)
    answer = await keys.call(actor, "PATCH", path, {"limits": sent})
    if result[0] > 60 and actor != "admin":
        assert refused(answer)["key"] == keys.ids["same"]
        answer = await keys.call("admin", "PATCH", path, {"limits": sent})
    assert answer.status_code == 200, answer.text
    assert await keys.stops(instance_id) == result
    # Without its own limits the instance still ends, and an admin key takes back what it granted.
    removed = await keys.call("admin", "PATCH", path, {"limits": None})
    assert removed.status_code == 200
    assert await keys.stops(instance_id) == (60, "keyLimit")


@pytest.mark.parametrize("actor", ACTORS)
async def test_the_limits_of_the_acting_key_bind_no_run_of_others(
    api_process: ApiProcess, actor: str
) -> None:
    """An instance that a key without limits created is kept and changed by every key."""
    keys = await Keys.made(api_process)
    creator = {"created_by_key_id": "key_plain", "inherited_limits": None}
    instance_id = await keys.running(LimitSettings(max_run_minutes=60), **creator)
    path = f"/api/instances/{instance_id}"
    assert (await keys.call(actor, "POST", f"{path}/keep", {"minutes": 5})).status_code == 200
    assert await keys.stops(instance_id) == (65, "maxRunMinutes")
    change = {"limits": {"maxRunMinutes": 90}}
    assert (await keys.call(actor, "PATCH", path, change)).status_code == 200
    assert await keys.stops(instance_id) == (90, "maxRunMinutes")


@pytest.mark.parametrize("actor", ACTORS)
async def test_auto_stop_moves_no_limit_of_a_key(api_process: ApiProcess, actor: str) -> None:
    """An idle time beyond the run is accepted, and the run still ends."""
    keys = await Keys.made(api_process)
    instance_id = await keys.running()
    path = f"/api/instances/{instance_id}"
    for setting in ({"idleMinutes": 300, "signals": ["lastUsed"]}, None):
        answer = await keys.call(actor, "PATCH", path, {"autoStop": setting})
        assert answer.status_code == 200
        assert await keys.stops(instance_id) == (60, "keyLimit")


async def test_a_stop_at_that_was_set_before_a_run_lifts_nothing(api_process: ApiProcess) -> None:
    """A stopped instance may have any `stopAt`; its next run is as long as the key says."""
    keys = await Keys.made(api_process)
    instance_id = await keys.running(obs_run_began_at=None)
    await api_process.turn(instance_id, InstanceStatus.STOPPED)
    path, now = f"/api/instances/{instance_id}", api_process.clock.now()
    body = {"limits": {"stopAt": iso(now + 300 * MINUTE)}}
    assert (await keys.call("same", "PATCH", path, body)).status_code == 200
    await api_process.turn(instance_id, InstanceStatus.RUNNING)

    def begin(connection: Any) -> None:
        instances.update_columns(connection, instance_id, {"obs_run_began_at": now})
        api_process.app.limits.review(
            connection, instances.load_many(connection, [instance_id])[instance_id]
        )

    await api_process.app.database.write(begin)
    assert await keys.stops(instance_id) == (60, "keyLimit")


@pytest.mark.parametrize("actor", ACTORS)
@pytest.mark.parametrize("creator", ["same", "nobody"])
@pytest.mark.parametrize(
    ("tags", "named"),
    [
        ({"team": "speech"}, True),
        ({"team": None}, True),
        ({"team": "vision"}, False),
        ({"user": "ann"}, False),
    ],
)
async def test_a_key_with_limits_changes_no_tag_that_a_budget_names(
    api_process: ApiProcess, actor: str, creator: str, tags: dict[str, str | None], named: bool
) -> None:
    """On any instance; other tags, and keys without limits, are free."""
    keys = await Keys.made(api_process)
    budget = {
        "name": "b",
        "amount": 100,
        "period": "day",
        "scope": {"tag": {"name": "team", "value": "vision"}},
    }
    await api_process.call("POST", "/api/budgets", scope=Scope.ADMIN, body=budget)
    more: dict[str, Any] = {"tags": orjson.dumps({"team": "vision"}).decode()}
    if creator == "nobody":
        more |= {"created_by_key_id": None, "created_by_name": None, "inherited_limits": None}
    path = f"/api/instances/{await keys.running(**more)}"
    answer = await keys.call(actor, "PATCH", path, {"tags": tags})
    if named and actor in keys.ids:
        assert refused(answer) == {"key": keys.ids[actor], "limit": "tags", "tags": ["team"]}
    else:
        assert answer.status_code == 200, answer.text

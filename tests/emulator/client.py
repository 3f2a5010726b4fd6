# SPDX-License-Identifier: Apache-2.0
"""A manual clock for the emulator, and a client of its API and its control API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2

from novitai.emulator.calling import GPU
from novitai.emulator.state import Emulator

Json = dict[str, object]


KEY = {"Authorization": "Bearer test-key"}


@dataclass(slots=True)
class ManualTime:
    """Real seconds that pass only when a test advances them."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def pass_(self, seconds: float) -> None:
        self.seconds += seconds


@dataclass(slots=True)
class Client:
    """Calls the emulated API and its control API, and decodes the JSON."""

    http: httpx2.AsyncClient
    emulator: Emulator
    time: ManualTime = field(default_factory=ManualTime)

    async def raw(self, method: str, path: str, **more: Any) -> httpx2.Response:
        base = "" if path.startswith(("/openapi", "/_")) else GPU
        return await self.http.request(method, base + path, **more)

    async def get(self, path: str, **params: str | int) -> Json:
        response = await self.raw("GET", path, params=params)
        assert response.status_code == 200, response.text
        return cast("Json", response.json())

    async def post(self, path: str, body: Mapping[str, object] | None = None) -> Json:
        response = await self.raw("POST", path, json=body or {})
        assert response.status_code == 200, response.text
        return cast("Json", response.json())

    async def refused(
        self, path: str, body: Mapping[str, object] | None = None, status: int = 400
    ) -> Json:
        """Send a POST that must be refused; return the error body."""
        response = await self.raw("POST", path, json=body or {})
        assert response.status_code == status, response.text
        error = cast("Json", response.json())
        assert set(error) == {"code", "reason", "message", "metadata"}
        assert error["code"] == status
        return error

    async def control(self, method: str, path: str, body: object = None) -> Json:
        response = await self.http.request(method, f"/_emulator{path}", json=body)
        assert response.status_code == 200, response.text
        return cast("Json", response.json())

    async def control_refused(self, method: str, path: str, body: object, status: int) -> Json:
        """Send a control call that must be refused; return the error."""
        response = await self.http.request(method, f"/_emulator{path}", json=body)
        assert response.status_code == status, response.text
        return cast("Json", response.json())

    async def fault(self, **fault: object) -> Json:
        return await self.control("POST", "/faults", fault)

    async def advance(self, seconds: float) -> None:
        """Advance the virtual time."""
        await self.control("POST", "/clock", {"advance": seconds})

    async def create(self, **more: object) -> str:
        """Create an instance and return its ID; arguments override the default fields."""
        body: Json = {
            "name": "my-instance",
            "productId": "gpu-basic.8c32g",
            "gpuNum": 1,
            "rootfsSize": 60,
            "imageUrl": "ubuntu:24.04",
            "kind": "gpu",
            **more,
        }
        return str((await self.post("/gpu/instance/create", body))["id"])

    async def running(self, **more: object) -> str:
        """Create an instance, wait until it has booted, and return its ID."""
        instance_id = await self.create(**more)
        await self.advance(300)
        assert await self.status(instance_id) == "running"
        return instance_id

    async def instance(self, instance_id: str) -> Json:
        return await self.get("/gpu/instance", instanceId=instance_id)

    async def status(self, instance_id: str) -> str:
        return str((await self.instance(instance_id))["status"])

    async def timeline(self, instance_id: str) -> dict[str, float]:
        """Return when the instance enters, or last entered, each status."""
        shown = await self.control("GET", f"/instances/{instance_id}")
        steps = cast("list[dict[str, Any]]", shown["timeline"])
        return {step["status"]: step["at"] for step in steps}

    async def bills(self, **params: str | int) -> list[dict[str, Any]]:
        """Return the rows of a list of bills; by default, the hourly ones of GPUs."""
        wanted = {"cycleType": "Hour", "productCategory": "gpu", **params}
        reply = await self.get("/openapi/v1/billing/bill/list", **wanted)
        return cast("list[dict[str, Any]]", reply["bills"])

    async def rows(self, **params: str | int) -> list[Json]:
        return cast("list[Json]", (await self.get("/gpu/instances", **params))["instances"])

    async def seed(self, **body: object) -> list[str]:
        return cast("list[str]", (await self.control("POST", "/seed", body))["ids"])

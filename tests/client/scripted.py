# SPDX-License-Identifier: Apache-2.0
"""A server whose responses a test lists, and a client with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from novitai_client import Novitai
from novitai_client.clock import Clock
from novitai_client.requests import CreateFields

URL: Final = "http://novitai.test"
Step = httpx2.Response | Exception | Callable[[httpx2.Request], httpx2.Response]
AT: Final = "2026-01-02T03:04:05.678Z"
CREATE: Final[CreateFields] = {
    "name": "ci",
    "product_name": "gpu-basic",
    "template_id": "tmpl-12345",
}
CREATED: Final = {
    "instanceId": "inst_1",
    "status": "creating",
    "message": "Instance creation initiated successfully",
    "estimatedReadyTime": AT,
}


@dataclass
class Script:
    """Answers each request with the next step; the last one is repeated."""

    steps: list[Step]
    requests: list[httpx2.Request] = field(default_factory=list)
    paused: list[float] = field(default_factory=list)
    now: float = 0.0

    def client(self, timeout: float = 60.0) -> Novitai:
        """Return a client of it, whose pauses take no time."""
        clock = Clock(monotonic=lambda: self.now, sleep=self.pause, random=lambda: 1.0)
        http = httpx2.Client(transport=httpx2.MockTransport(self.answer))
        return Novitai(URL, "nvt_of_the_tests", timeout=timeout, http=http, clock=clock)

    def pause(self, seconds: float) -> None:
        """Record a pause, and let its time pass."""
        self.paused.append(seconds)
        self.now += seconds

    def answer(self, request: httpx2.Request) -> httpx2.Response:
        """Take the next step."""
        self.requests.append(request)
        step = self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]
        if isinstance(step, Exception):
            raise step
        return step(request) if callable(step) else step

    def keys(self) -> list[str | None]:
        """List the idempotency keys of the requests."""
        return [request.headers.get("Idempotency-Key") for request in self.requests]


def refusal(status: int, code: str, **more: Any) -> httpx2.Response:
    """Make an error of the API."""
    headers = {"Retry-After": str(more.pop("after"))} if "after" in more else {}
    error = {"code": code, "message": "no", "category": "CLIENT_ERROR", "retryable": False}
    body = {"error": {**error, "requestId": "req_1", "timestamp": AT, **more}}
    return httpx2.Response(status, json=body, headers=headers)


def instance(status: str, **more: object) -> dict[str, object]:
    """Make the view of an instance."""
    return {
        "id": "inst_1",
        "name": "ci",
        "status": status,
        "gpuNum": 1,
        "region": "US-WEST-01",
        "portMappings": [],
        "createdAt": AT,
        "productName": "gpu-basic",
        "billingMode": "onDemand",
        "hourlyPrice": 0.6,
        "tags": {},
        **more,
    }


class Parts(httpx2.SyncByteStream):
    """A body in parts, one of which may be an error."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self._parts = parts

    def __iter__(self) -> Iterator[bytes]:
        for part in self._parts:
            if isinstance(part, Exception):
                raise part
            yield part

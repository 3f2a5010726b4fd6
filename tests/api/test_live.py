# SPDX-License-Identifier: Apache-2.0
"""Tests of the whole application over real HTTP: errors, limits, keys, metrics, secrets."""

from __future__ import annotations

import io
import ipaddress
import json
import re
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx2
import pytest
import structlog
from starlette.responses import Response

from novitai.api.http import application
from novitai.api.routing.router import Route, RouteCall
from novitai.domain.api_key import Scope
from novitai.errors import Category
from novitai.settings import Environment
from novitai.telemetry import logs
from novitai.upstream.gateway import READ_TRIES
from tests.api.application import CREATE
from tests.live import ADMIN_KEY, LiveServer, live
from tests.services import unavailable

TEMPLATES: Final = "/templates"
CANARIES: Final = ("canary-of-an-env-77aa", "canary-password-5d2e", "canary-of-a-defect-91c4")


async def _defect(_call: RouteCall) -> Response:
    """Raise an unexpected exception."""
    raise RuntimeError(f"cannot connect with password={CANARIES[2]}")


DEFECT: Final = Route(
    method="GET",
    path="/api/defect/{word}",
    id="testRoute",
    handler=_defect,
    scope=Scope.READ,
    tag="Health",
    summary="Break",
    answers={200: None},
)


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Capture the log, with production settings."""
    stream = io.StringIO()
    logs.set_up(production=True, stream=stream, secrets=[ADMIN_KEY, CANARIES[1]])
    # A cached logger would keep writing to this stream in other tests.
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
def server(sqlite_database_url: str, tmp_path: Path, lines: io.StringIO) -> Iterator[LiveServer]:
    """Start a server in production mode, with a trusted local proxy and a failing route."""
    settings = {
        "environment": Environment.PRODUCTION,
        "trusted_proxies": (ipaddress.ip_network("127.0.0.1/32"),),
        "upstream_timeout_seconds": 0.3,
    }
    with live(
        sqlite_database_url, tmp_path, speed=240, extra=(DEFECT,), settings=settings
    ) as running:
        yield running


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    """Return the status and code of an error response."""
    return answer.status_code, answer.json()["error"]["code"]


def slowly(server: LiveServer) -> tuple[int, dict[str, Any]]:
    """Send a request without its body; return the response."""
    parts = urlsplit(server.url)
    with socket.create_connection((str(parts.hostname), int(parts.port or 0)), 30) as connection:
        connection.sendall(
            f"POST /api/instances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN_KEY}\r\n"
            "Content-Type: application/json\r\nContent-Length: 50\r\n\r\n{".encode()
        )
        raw = b""
        while b"}}" not in raw:
            chunk = connection.recv(65536)
            assert chunk, raw
            raw += chunk
    head, _, body = raw.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


class Errors:
    """Collects error responses."""

    def __init__(self, http: httpx2.Client) -> None:
        self._http = http
        self.met: dict[tuple[int, str], dict[str, Any]] = {}

    def meet(self, method: str, path: str, **request: Any) -> httpx2.Response:
        """Send a request that gets an error."""
        answer = self._http.request(method, path, **request)
        error = answer.json()["error"]
        self.met[code_of(answer)] = error
        assert error["requestId"] == answer.headers["X-Request-ID"]
        assert answer.headers["Content-Type"] == "application/json"
        return answer

    def create(self, **changes: object) -> Any:
        """Send an invalid create request; return the details of the error."""
        answer = self.meet("POST", "/api/instances", json={**CREATE, **changes})
        return answer.json()["error"].get("details")


def meet_wrong_bodies(errors: Errors) -> None:
    """Collect 400, 409, 413 and 415."""
    for wrong in (
        {"name": "no spaces"},
        {"productName": 7},
        {"templateId": ""},
        {"gpuNum": 9},
        {"rootfsSize": 19},
        {"webhookUrl": "ftp://example.com"},
        {"name": "", "gpuNum": 0},
    ):
        assert [one["field"] for one in errors.create(**wrong)] == list(wrong)
    assert errors.create(productName="no-such-product")[0]["field"] == "productName"
    assert errors.create(templateId="no-such-template")[0]["field"] == "templateId"
    errors.create(maxHourlyPrice=0.001)
    as_json, as_text = {"Content-Type": "application/json"}, {"Content-Type": "text/plain"}
    errors.meet("POST", "/api/instances", content=b"{", headers=as_json)
    errors.meet("POST", "/api/instances", content=b"a", headers=as_text)
    errors.meet("POST", "/api/instances", content=b"x" * (1 << 20 | 1))


def meet_refusals(errors: Errors, writer: Mapping[str, str]) -> None:
    """Collect 401, 403, 404 and 405."""
    unknown = errors.meet("GET", "/api/instances", headers={"Authorization": "Bearer nvt_x"})
    assert unknown.headers["WWW-Authenticate"] == "Bearer"
    errors.meet("GET", "/api/keys", headers=writer)
    errors.meet("GET", "/api/instances", headers={"X-Forwarded-For": "203.0.113.9"})
    for path in ("/api/instances/inst_0_x", "/api/nothing", "/v2/api/instances"):
        errors.meet("GET", path)
    errors.meet("GET", "/api/cache/nothing/stats")
    errors.meet("DELETE", "/api/cache/templates/nothing")
    errors.meet("DELETE", "/api/keys/key_0")
    assert errors.meet("PATCH", "/api/instances").headers["Allow"] == "GET, HEAD, POST"


def meet_repetitions(errors: Errors, http: httpx2.Client) -> None:
    """Collect 409 and 422."""
    once = {"Idempotency-Key": "once"}
    assert http.post("/api/instances", json=CREATE, headers=once).status_code == 201
    errors.meet("POST", "/api/instances", json={**CREATE, "name": "other"}, headers=once)
    key = {"name": "k", "scopes": ["read"]}
    assert http.post("/api/keys", json=key, headers=once).status_code == 201
    errors.meet("POST", "/api/keys", json=key, headers=once)


def meet_upstream(errors: Errors, server: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collect 502, 503 and 504."""
    server.http.post("/api/cache/clear")
    with monkeypatch.context() as patch:
        # 2 s of this are reserved for the response.
        patch.setattr(application, "REQUEST_SECONDS", 2.3)
        server.fault(kind="call", path=TEMPLATES, latencySeconds=1, times=1)
        errors.meet("GET", "/api/templates")
    time.sleep(1)
    server.http.post("/api/cache/clear")
    server.fault(kind="call", path=TEMPLATES, status=500)
    answers = [errors.meet("GET", "/api/templates") for _ in range(8)]
    assert "Retry-After" in answers[-1].headers


def test_every_error_can_be_met_over_http(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, lines: io.StringIO
) -> None:
    """Each code of the error table and of Appendix C has its category, IDs and `retryable`."""
    errors = Errors(server.http)
    meet_wrong_bodies(errors)
    meet_refusals(errors, server.key("write"))
    meet_repetitions(errors, server.http)
    defect = errors.meet("GET", f"/api/defect/{CANARIES[0]}")
    assert CANARIES[2] not in defect.text
    with monkeypatch.context() as patch:
        patch.setattr(application, "REQUEST_SECONDS", 0.3)
        status, body = slowly(server)
        errors.met[status, body["error"]["code"]] = body["error"]
    meet_upstream(errors, server, monkeypatch)
    assert set(errors.met) >= {
        (400, "VALIDATION_ERROR"),
        (400, "INVALID_INSTANCE_NAME"),
        (400, "INVALID_PRODUCT_NAME"),
        (400, "INVALID_TEMPLATE_ID"),
        (400, "INVALID_GPU_NUM"),
        (400, "INVALID_ROOTFS_SIZE"),
        (400, "INVALID_WEBHOOK_URL"),
        (400, "INVALID_JSON"),
        (401, "UNAUTHORIZED"),
        (403, "FORBIDDEN"),
        (403, "HTTPS_REQUIRED"),
        (404, "INSTANCE_NOT_FOUND"),
        (404, "NOT_FOUND"),
        (404, "CACHE_NOT_FOUND"),
        (404, "CACHE_KEY_NOT_FOUND"),
        (404, "KEY_NOT_FOUND"),
        (405, "METHOD_NOT_ALLOWED"),
        (408, "REQUEST_TIMEOUT"),
        (409, "NO_CAPACITY"),
        (409, "IDEMPOTENCY_NOT_REPLAYABLE"),
        (413, "PAYLOAD_TOO_LARGE"),
        (415, "UNSUPPORTED_MEDIA_TYPE"),
        (422, "IDEMPOTENCY_KEY_REUSED"),
        (500, "INTERNAL_SERVER_ERROR"),
        (502, "EXTERNAL_API_ERROR"),
        (503, "CIRCUIT_BREAKER_OPEN"),
        (504, "UPSTREAM_TIMEOUT"),
    }
    for (status, code), error in errors.met.items():
        assert (error["category"], error["retryable"]) == expected_category(status, code), code
    told = defect.headers["X-Request-ID"]
    logged = [json.loads(line) for line in lines.getvalue().splitlines()]
    (broken,) = [line for line in logged if line["event"] == "unhandled_error"]
    assert broken["request_id"] == told
    assert broken["error"] == "builtins.RuntimeError"
    assert any("test_live.py" in frame for frame in broken["error_at"])


def expected_category(status: int, code: str) -> tuple[str, bool]:
    """Return category and `retryable` of Appendix C of the API reference."""
    by_status = {
        400: Category.VALIDATION,
        401: Category.AUTHENTICATION,
        403: Category.AUTHORIZATION,
        408: Category.TIMEOUT,
        429: Category.RATE_LIMIT,
        500: Category.SERVER,
        502: Category.EXTERNAL_API,
        503: Category.CIRCUIT_BREAKER,
        504: Category.TIMEOUT,
    }
    retryable = status in {408, 429, 500, 502, 503, 504} or code == "NO_CAPACITY"
    return by_status.get(status, Category.CLIENT).value, retryable


def test_a_change_that_comes_too_late_is_not_made(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the writer is busy past the deadline, the response is 408 and no key exists afterwards."""
    released, began = threading.Event(), threading.Event()

    async def hold() -> None:
        def busy(_connection: object) -> None:
            began.set()
            released.wait(20)

        await server.app.database.write(busy)

    monkeypatch.setattr(application, "REQUEST_SECONDS", 0.3)
    with ThreadPoolExecutor(2) as pool:
        holding = pool.submit(server.run, hold())
        assert began.wait(10)
        body = {"name": "too late", "scopes": ["read"]}
        asked = pool.submit(server.http.post, "/api/keys", json=body)
        time.sleep(0.6)
        released.set()
        holding.result()
        assert code_of(asked.result()) == (408, "REQUEST_TIMEOUT")
    monkeypatch.undo()
    names = [key["name"] for key in server.http.get("/api/keys").json()["keys"]]
    assert "too late" not in names


def test_the_rate_limit_is_exact(sqlite_database_url: str, tmp_path: Path) -> None:
    """120 calls at once, then one per 600 ms; `Retry-After` is exact; failures count separately."""
    with live(sqlite_database_url, tmp_path, settings={"rate_limit_per_minute": 100}) as server:
        key = server.key("read")
        began = time.monotonic()
        allowed = 0
        while (answer := server.http.get("/api/cache/stats", headers=key)).status_code == 200:
            allowed += 1
            assert answer.headers["RateLimit-Policy"] == '"key";q=120;w=72'
        passed = time.monotonic() - began
        assert 120 <= allowed <= 121 + passed / 0.6
        assert code_of(answer) == (429, "RATE_LIMIT_EXCEEDED")
        error = answer.json()["error"]
        assert (error["category"], error["retryable"]) == ("RATE_LIMIT_ERROR", True)
        assert answer.headers["Retry-After"] == "1"
        assert server.http.get("/health", headers=key).status_code == 200
        assert server.http.get("/api/cache/stats").status_code == 200, "another key was limited"
        time.sleep(1)
        assert server.http.get("/api/cache/stats", headers=key).status_code == 200


def test_a_key_s_life_over_http(server: LiveServer) -> None:
    """A key is created, used, shown as used, and refused as soon as it is revoked."""
    made = server.http.post("/api/keys", json={"name": "ci", "scopes": ["admin"]}).json()
    own = {"Authorization": f"Bearer {made['key']}"}
    assert server.http.get("/metrics", headers=own).status_code == 200
    server.run(server.app.keys.flush())
    listed = server.http.get("/api/keys", headers=own).json()["keys"]
    (mine,) = [key for key in listed if key["id"] == made["id"]]
    assert "lastUsedAt" in mine
    assert "key" not in mine
    revoked = server.http.delete(f"/api/keys/{made['id']}", headers=own)
    assert revoked.status_code == 200
    assert "revokedAt" in revoked.json()
    assert server.http.get("/api/keys", headers=own).status_code == 401


def test_a_hundred_misses_make_one_call(server: LiveServer) -> None:
    """A hundred clients request uncached data: Novita is called once, and all get the result."""
    server.fault(kind="call", path=TEMPLATES, latencySeconds=0.15)
    with (
        ThreadPoolExecutor(50) as pool,
        httpx2.Client(
            base_url=server.url,
            headers={"Authorization": f"Bearer {ADMIN_KEY}"},
            trust_env=False,
            timeout=30,
            limits=httpx2.Limits(max_connections=100),
        ) as client,
    ):
        answers = list(pool.map(lambda _: client.get("/api/templates"), range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    counts = server.run(server.emulator.call("GET", "counts"))["counts"]
    asked = {call: count for call, count in counts.items() if "template" in call}
    # Once, or once per try of the read if the machine is too busy to answer in time.
    assert sum(asked.values()) <= READ_TRIES, asked
    stats = server.http.get("/api/cache/templates/stats").json()
    assert stats["misses"] >= 1
    assert stats["hits"] + stats["misses"] == 100


def test_an_instance_from_request_to_running(server: LiveServer) -> None:
    """Create, read, list, caches, health and metrics work in the real application."""
    http = server.http
    made = http.post("/api/instances", json=CREATE)
    assert made.status_code == 201
    path = made.headers["Location"]
    deadline = time.monotonic() + 60
    while (shown := http.get(path)).json()["status"] != "running":
        assert time.monotonic() < deadline, shown.text
        time.sleep(0.05)
    again = http.get(path)
    fresh = http.get(path, headers={"If-None-Match": again.headers["ETag"]})
    assert (fresh.status_code, fresh.content) == (304, b"")
    listed = http.get("/api/instances").json()
    assert (listed["total"], listed["instances"][0]["id"]) == (1, made.json()["instanceId"])
    stats = http.get("/api/cache/stats").json()
    assert set(stats["caches"]) == {
        "instance-details",
        "products",
        "templates",
        "clusters",
    }
    assert stats["caches"]["instance-details"]["hits"] >= 1
    assert stats["summary"]["totalCaches"] == 4
    assert stats["summary"]["totalHits"] == sum(one["hits"] for one in stats["caches"].values())
    cached = f"/api/cache/instance-details/{listed['instances'][0]['id']}"
    assert [http.delete(cached).status_code for _ in range(2)] == [200, 404]
    assert http.get(path).content == again.content or "observedAt" in again.json()
    health = http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy")
    assert health.json()["performance"]["jobProcessingRate"] > 0
    data = http.get("/metrics").json()["data"]
    assert data["jobs"]["byType"]["create_instance"]["processed"] >= 1
    assert data["requests"]["byEndpoint"]["POST /api/instances"]["count"] == 1
    assert data["requests"]["byEndpoint"]["GET /api/instances/{instanceId}"]["count"] >= 3
    assert data["cache"]["hits"] >= 1


def test_prometheus_finds_nothing_to_say(server: LiveServer) -> None:
    """`promtool check metrics` finds no error after traffic of every kind."""
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is not on the PATH (Debian's package: prometheus)")
    http = server.http
    http.post("/api/instances", json=CREATE)
    http.get("/api/nothing")
    http.get("/api/defect/x")
    deadline = time.monotonic() + 30
    while not http.get("/metrics").json()["data"]["jobs"]["total"]["processed"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    body = http.get("/metrics", headers={"Accept": "text/plain"}).text
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=body, capture_output=True, text=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")
    assert 'novitai_http_requests_total{method="GET",route="(unmatched)",status="404"}' in body


def test_no_secret_is_ever_told(server: LiveServer, lines: io.StringIO) -> None:
    """Keys, variables and URL passwords appear only in the intended response, never in the log."""
    http = server.http
    made = http.post("/api/keys", json={"name": "ci", "scopes": ["read"]}).json()
    url = f"https://user:{CANARIES[1]}@hooks.example.com/x"
    wanted: Mapping[str, object] = {
        **CREATE,
        "webhookUrl": url,
        "envs": {"TOKEN": CANARIES[0]},
    }
    created = http.post("/api/instances", json=wanted)
    assert created.status_code == 201, created.text
    path = f"/api/instances/{created.json()['instanceId']}"
    said = [created.text]
    for method, where, request in (
        ("POST", "/api/instances", {"json": {**wanted, "name": "", "envs": {"T=": CANARIES[0]}}}),
        ("POST", "/api/instances", {"json": {**wanted, "webhookUrl": url.replace("s:", "x:")}}),
        ("POST", "/api/instances", {"json": {**wanted, "env": {"T": CANARIES[0]}}}),
        ("GET", f"/api/defect/{CANARIES[0]}", {}),
        ("GET", "/api/keys", {"headers": {"Authorization": f"Bearer {made['key']}"}}),
        ("GET", "/api/keys", {"headers": {"Authorization": f"Bearer {made['key']}x"}}),
        ("GET", "/api/keys", {"headers": {"Authorization": f"Basic {made['key']}"}}),
        ("GET", "/api/keys", {}),
        ("GET", f"/api/instances?name={made['key']}", {}),
        ("GET", path, {}),
        ("GET", f"{path}/events", {}),
        ("GET", "/api/instances", {}),
        ("GET", "/api/events", {}),
        ("GET", "/metrics", {}),
        ("GET", "/metrics", {"headers": {"Accept": "text/plain"}}),
        ("GET", "/api/cache/instance-details/stats", {}),
        ("GET", "/health", {}),
    ):
        said.append(http.request(method, where, **request).text)
    secrets = (*CANARIES, made["key"], ADMIN_KEY)
    for text in said:
        assert not [secret for secret in secrets if secret in text], text
    logged = lines.getvalue()
    assert not [secret for secret in secrets if secret in logged]
    requests = [line for line in map(json.loads, logged.splitlines()) if line["event"] == "request"]
    assert len(requests) >= len(said)
    for line in requests:
        assert line.keys() >= {"request_id", "route", "status", "duration_ms", "key_id", "method"}
        assert ("instance_id" in line) is ("{instanceId}" in line["route"])
    assert not re.search(r"Traceback|SELECT ", logged)

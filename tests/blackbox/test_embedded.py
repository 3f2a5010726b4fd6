# SPDX-License-Identifier: Apache-2.0
"""`novitai serve` on the embedded database: from request to running, through kills and stops."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.blackbox.harness import ENV_VALUE, REQUEST, STOP_WITHIN, Sandbox, until


def test_a_request_becomes_a_running_instance(sandbox: Sandbox) -> None:
    """One request makes one create call and one running instance; /health reports healthy."""
    emulator, server = sandbox.emulator(), sandbox.server()
    instance_id = server.create(envs={"TOKEN": ENV_VALUE})
    server.until_running([instance_id], 30)
    assert emulator.create_calls() == 1
    assert emulator.instances() == (1, 1)
    health = server.http.get("/health")
    assert (health.status_code, health.json()["status"]) == (200, "healthy"), health.text


def test_fifty_requests_at_once_buy_fifty_instances(sandbox: Sandbox) -> None:
    """Fifty concurrent requests lead to fifty running instances with exactly fifty create calls."""
    emulator, server = sandbox.emulator(), sandbox.server()
    ids = server.create_many(50)
    assert len(set(ids)) == 50
    server.until_running(ids, 60)
    assert emulator.create_calls() == 50
    assert emulator.instances() == (50, 50)


def test_a_killed_server_loses_nothing_and_buys_nothing_twice(sandbox: Sandbox) -> None:
    """After SIGKILL during fifty purchases, the next start brings all fifty to running."""
    emulator, server = sandbox.emulator(), sandbox.server()
    # At the kill, some calls have not taken effect, and others have but are not yet answered.
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="before", latencySeconds=1, every=3
    )
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="after", latencySeconds=1, every=2
    )
    ids = server.create_many(50)
    until(lambda: emulator.create_calls() >= 10, 30, "ten create calls arrived", every=0.01)
    server.process.kill()
    again = sandbox.server()
    assert set(ids) <= set(again.statuses())
    again.until_running(ids, 75)
    assert emulator.instances() == (50, 50)


def test_an_open_stream_does_not_hold_the_end(sandbox: Sandbox) -> None:
    """Streams end in good order: on SIGTERM, and within 2 s after their key was revoked."""
    sandbox.emulator()
    server = sandbox.server()
    made = server.http.post("/api/keys", json={"name": "reader", "scopes": ["read"]}).json()
    revocable = {"Authorization": f"Bearer {made['key']}"}
    with (
        server.http.stream("GET", "/api/events/stream", params={"since": "cur_0"}) as stream,
        server.http.stream("GET", "/api/events/stream", headers=revocable) as other,
    ):
        lines = stream.iter_lines()
        instance_id = server.create()
        events = [next(line for line in lines if line.startswith("event:")) for _ in range(3)]
        assert events == [f"event: instance.{one}" for one in ("created", "starting", "running")]
        revoked_at = time.monotonic()
        server.http.delete(f"/api/keys/{made['id']}")
        assert instance_id in "".join(other.iter_lines())
        assert time.monotonic() - revoked_at < 2
        server.process.send(signal.SIGTERM)
        assert [line for line in lines if line.startswith("event:")] == []
        assert server.process.wait(3) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_is_asked_to_end_does_and_the_next_goes_on(
    sandbox: Sandbox, number: signal.Signals
) -> None:
    """With steps running it ends in time with code 0, and the next start finishes them."""
    emulator, server = sandbox.emulator(), sandbox.server()
    emulator.fault(
        kind="call", path="/gpu/instance/create", when="after", latencySeconds=3, times=5
    )
    ids = server.create_many(10)
    until(lambda: emulator.create_calls() >= 5, 30, "create calls are under way", every=0.01)
    began = time.monotonic()
    server.process.send(number)
    assert server.process.wait(STOP_WITHIN) == 0, server.process.err
    assert time.monotonic() - began < STOP_WITHIN
    again = sandbox.server()
    again.until_running(ids, 60)
    assert emulator.instances() == (10, 10)


def test_requests_in_hand_are_answered_before_the_end(sandbox: Sandbox) -> None:
    """At SIGHUP a long poll gets the instance; a request that waits for Novita gets a 503."""
    emulator = sandbox.emulator()
    patient = {"NOVITAI_UPSTREAM_TIMEOUT_SECONDS": "30"}
    server = sandbox.ready(sandbox.run("serve", "--port", "0", **patient))
    emulator.fault(kind="call", path="/gpu/instance/create", latencySeconds=30)
    instance_id = server.create()
    emulator.fault(kind="call", path="/template", latencySeconds=30)
    other = {**REQUEST, "templateId": "107745"}
    with ThreadPoolExecutor(2) as pool:
        polled = pool.submit(server.http.get, f"/api/instances/{instance_id}/wait?timeout=60")
        made = pool.submit(server.http.post, "/api/instances", json=other)
        time.sleep(1)
        assert not polled.done()
        assert not made.done()
        began = time.monotonic()
        server.process.send(signal.SIGHUP)
        assert polled.result().status_code == 202
        assert polled.result().json()["id"] == instance_id
        assert time.monotonic() - began < 1.5
        told = made.result()
    assert told.status_code == 503, told.text
    assert told.json()["error"]["code"] == "SHUTTING_DOWN"
    assert told.json()["error"]["requestId"] == told.headers["X-Request-ID"]
    assert int(told.headers["Retry-After"]) >= 1
    assert server.process.wait(STOP_WITHIN) == 0, server.process.err
    assert list(sandbox.server().statuses()) == [instance_id]


def test_hanging_requests_and_steps_do_not_add_up(sandbox: Sandbox) -> None:
    """With a request and a step that both hang for 30 s, the process ends in time with code 0."""
    emulator = sandbox.emulator()
    patient = {"NOVITAI_UPSTREAM_TIMEOUT_SECONDS": "30"}
    server = sandbox.ready(sandbox.run("serve", "--port", "0", **patient))
    emulator.fault(kind="call", path="/gpu/instance/create", latencySeconds=30)
    server.create()
    until(lambda: emulator.create_calls() >= 1, 30, "the create call is under way", every=0.01)
    emulator.fault(kind="call", path="/template", latencySeconds=30)
    with ThreadPoolExecutor(1) as pool:
        other = {**REQUEST, "templateId": "107745"}
        made = pool.submit(server.http.post, "/api/instances", json=other)
        time.sleep(1)
        began = time.monotonic()
        server.process.send(signal.SIGTERM)
        assert server.process.wait(STOP_WITHIN) == 0, server.process.err
        assert made.result().status_code == 503
    assert time.monotonic() - began < STOP_WITHIN
    assert "did not finish in time" not in server.process.err


def test_few_files_do_not_keep_others_out(sandbox: Sandbox) -> None:
    """With a limit of 256 files and 600 idle connections, other clients are served."""
    limits = ["sh", "-c", 'ulimit -n 256; exec "$0" "$@"']
    server = sandbox.ready(sandbox.run("serve", "--port", "0", before=limits))
    host, port = server.url.removeprefix("http://").split(":")
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"
    halves = [b"", b"GET / HTTP/1.1\r\nX: ", post]
    with contextlib.ExitStack() as stack:
        for number in range(600):
            taken = stack.enter_context(socket.create_connection((host, int(port)), 10))
            taken.sendall(halves[number % 3])
        began = time.monotonic()
        assert server.http.get("/health/ready").status_code == 200
        assert server.statuses() == {}
        assert time.monotonic() - began < 5
    assert server.process.err.count("connections_full") == 1
    assert server.process.err.count("file_limit_low") == 1
    server.process.send(signal.SIGTERM)
    assert server.process.wait(STOP_WITHIN) == 0


def test_a_second_signal_ends_at_once(sandbox: Sandbox) -> None:
    """A second SIGTERM ends the process without waiting for running steps."""
    emulator, server = sandbox.emulator(), sandbox.server()
    emulator.fault(kind="call", path="/gpu/instance/create", latencySeconds=30)
    server.create()
    until(lambda: emulator.create_calls() >= 1, 30, "the create call is under way", every=0.01)
    server.process.send(signal.SIGTERM)
    time.sleep(0.5)
    assert server.process.code is None
    server.process.send(signal.SIGTERM)
    assert server.process.wait() == 128 + signal.SIGTERM


def test_a_deadline_survives_a_kill(sandbox: Sandbox) -> None:
    """The placement deadline counts from the request, even if the server is killed meanwhile."""
    emulator = sandbox.emulator()
    emulator.fault(kind="call", path="/gpu/instance/create", status=401)
    patient = {"NOVITAI_PLACEMENT_DEADLINE_SECONDS": "8"}
    server = sandbox.ready(sandbox.run("serve", "--port", "0", **patient))
    instance_id = server.create()
    server.process.kill()
    again = sandbox.ready(sandbox.run("serve", "--port", "0", **patient))
    until(lambda: again.statuses()[instance_id] == "failed", 45, "the deadline has passed")
    view = again.http.get(f"/api/instances/{instance_id}").json()
    assert view["error"]["code"] == "UPSTREAM_UNAVAILABLE"
    assert emulator.instances() == (0, 0)

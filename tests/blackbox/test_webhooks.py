# SPDX-License-Identifier: Apache-2.0
"""Webhooks of real processes arrive in order and signed, even if the server is killed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.blackbox.harness import REQUEST, Sandbox, until

SECRET = "whsec_c2VjcmV0IG9mIHRoZSBibGFjayBib3ggdGVzdHMh"


class Receiver:
    """An HTTP receiver that verifies messages and answers with `status`."""

    def __init__(self) -> None:
        self.status = 200
        self.got: list[tuple[str, str, dict[str, Any]]] = []
        self.secrets: dict[str, str] = {"/own": SECRET}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                Webhook(receiver.secrets[self.path]).verify(body, headers)
                receiver.got.append((self.path, headers["webhook-id"], json.loads(body)))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: Any, **__: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def types(self, path: str) -> list[str]:
        """The types of the messages to a path, each message once, in order."""
        seen = {message_id: body["type"] for at, message_id, body in self.got if at == path}
        return [word.removeprefix("instance.") for word in seen.values()]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A running receiver."""
    made = Receiver()
    yield made
    made.close()


def test_messages_arrive_in_order_and_signed(sandbox: Sandbox, receiver: Receiver) -> None:
    """The instance's own URL and a standing webhook get messages, and deliveries are recorded."""
    sandbox.env |= {"NOVITAI_WEBHOOK_ALLOW_PRIVATE": "true", "NOVITAI_WEBHOOK_SECRET": SECRET}
    sandbox.emulator()
    server = sandbox.server()
    made = server.http.post(
        "/api/webhooks",
        json={"url": f"{receiver.url}/standing", "eventTypes": ["instance.running"]},
    ).json()
    receiver.secrets["/standing"] = made["secret"]
    assert server.http.post(f"/api/webhooks/{made['id']}/test").json()["delivered"] is True
    instance_id = server.create(webhookUrl=f"{receiver.url}/own")
    until(lambda: "running" in receiver.types("/own"), 30, "told that it runs")
    until(lambda: "running" in receiver.types("/standing"), 5, "told the standing one")
    assert receiver.types("/own") == ["created", "starting", "running"]
    assert receiver.types("/standing") == ["webhook.test", "running"]
    last = next(body for path, _, body in reversed(receiver.got) if path == "/own")
    assert (last["data"]["id"], last["data"]["previousStatus"]) == (instance_id, "starting")

    def on_record() -> list[str]:
        answer = server.http.get(f"/api/instances/{instance_id}/deliveries").json()
        return [one["status"] for one in answer["deliveries"]]

    # A delivery is recorded shortly after its message arrives.
    until(lambda: on_record() == ["delivered"] * 4, 5, "all on record as delivered")


def test_a_killed_server_loses_no_message(sandbox: Sandbox, receiver: Receiver) -> None:
    """The next process retries messages refused before SIGKILL, with the same ID."""
    sandbox.env |= {"NOVITAI_WEBHOOK_ALLOW_PRIVATE": "true", "NOVITAI_WEBHOOK_SECRET": SECRET}
    sandbox.emulator()
    server = sandbox.server()
    receiver.status = 503
    server.create(webhookUrl=f"{receiver.url}/own")
    until(lambda: bool(receiver.got), 10, "the first try")
    server.process.kill()
    receiver.status = 200
    sandbox.server()
    until(lambda: "running" in receiver.types("/own"), 40, "told that it runs")
    assert receiver.types("/own") == ["created", "starting", "running"]
    assert len({message_id for _, message_id, body in receiver.got}) == 3


def test_private_receivers_are_refused_unless_allowed(sandbox: Sandbox, receiver: Receiver) -> None:
    """Receivers with private addresses are refused with 400, and nothing is sent to them."""
    sandbox.emulator()
    server = sandbox.server()
    for url in (f"{receiver.url}/own", "http://localhost/", "https://0x7f.1/", "http://[::1]/"):
        instance = {**REQUEST, "webhookUrl": url}
        for path, body in (("/api/webhooks", {"url": url}), ("/api/instances", instance)):
            answer = server.http.post(path, json=body)
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] == "INVALID_WEBHOOK_URL"
    assert not receiver.got

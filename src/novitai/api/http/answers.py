# SPDX-License-Identifier: Apache-2.0
"""Build JSON responses."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from starlette.responses import Response

from novitai.api.http.accept import JSON
from novitai.api.schemas.wire import ResponseModel
from novitai.lifecycle.commands.idempotency import Reply

_JSON: Final = (b"content-type", JSON.encode())


class ReadyResponse(Response):
    """A response whose body is ready, made without the conversions of its parent.

    Args:
        body: The JSON, or nothing.
        status: The HTTP status.
        headers: Further headers, with names in lower case.
    """

    def __init__(
        self, body: bytes, status: int = 200, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        self.body = body
        self.status_code = status
        self.background = None
        self.raw_headers = [*headers]
        if body:
            self.raw_headers += (_JSON, (b"content-length", b"%d" % len(body)))


def answer(
    body: ResponseModel | bytes, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Build a JSON response."""
    return Response(_bytes(body), status, headers, JSON)


def reply(
    body: ResponseModel | bytes,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    secret_of: str | None = None,
) -> Reply:
    """Build a reply to store with its `Idempotency-Key`, unless it shows a secret."""
    return Reply(status, headers or {}, _bytes(body), secret_of)


def from_reply(reply: Reply) -> Response:
    """Respond with a reply, new or stored by an earlier request with the same key."""
    headers = dict(reply.headers)
    if reply.replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(reply.body, reply.status, headers, JSON)


def _bytes(body: ResponseModel | bytes) -> bytes:
    return body if isinstance(body, bytes) else body.json_bytes()

# SPDX-License-Identifier: Apache-2.0
"""Answers as bytes."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from starlette.responses import Response

from novitai.api.http.accept import JSON
from novitai.lifecycle.commands.idempotency import Reply


def json_answer(
    body: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """Answer with JSON."""
    return Response(orjson.dumps(body), status, headers, JSON)


def json_reply(
    body: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    *,
    secret_of: str | None = None,
) -> Reply:
    """Write an answer that is stored with its `Idempotency-Key`, unless it shows a secret."""
    return Reply(status, headers or {}, orjson.dumps(body), secret_of)


def from_reply(reply: Reply) -> Response:
    """Answer with what was rendered, perhaps for an earlier request with the same key."""
    headers = dict(reply.headers)
    if reply.replayed:
        headers["Idempotent-Replayed"] = "true"
    return Response(reply.body, reply.status, headers, JSON)

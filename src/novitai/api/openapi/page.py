# SPDX-License-Identifier: Apache-2.0
"""Serve the OpenAPI document and a page that shows it without resources of other servers."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, Final

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from novitai.api.http.answers import answer
from novitai.api.http.context import context_of

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>novitai API</title>
<link rel="icon" href="data:,">
<style>{style}</style>
<main><noscript>This page needs JavaScript; the document is at openapi.json.</noscript></main>
<script>{script}</script>
</html>
"""


OPENAPI_PATH: Final = "/openapi.json"
DOCS_PATH: Final = "/docs"


def install(app: Starlette, write: Callable[[], dict[str, Any]]) -> None:
    """Serve the document and the page; neither needs an API key.

    Args:
        app: The application that serves them.
        write: Generates the document; called once, at the first request.
    """
    page, policy = _page()
    written = cache(lambda: orjson.dumps(write()))

    async def document(request: Request) -> Response:
        context_of(request).route = OPENAPI_PATH
        return answer(written())

    async def docs(request: Request) -> Response:
        context_of(request).route = DOCS_PATH
        headers = {"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"}
        return Response(page, 200, headers, "text/html")

    app.add_route(OPENAPI_PATH, document, methods=["GET"])
    app.add_route(DOCS_PATH, docs, methods=["GET"])


def _page() -> tuple[bytes, str]:
    folder = files("novitai.api.openapi") / "static"
    style = (folder / "docs.css").read_text("utf-8")
    # A relative URL, so that the page works under `/v1` and under a proxy's path prefix.
    script = (folder / "docs.js").read_text("utf-8")
    script = script.replace("__OPENAPI__", OPENAPI_PATH.lstrip("/"))
    page = _PAGE.format(style=style, script=script).encode()
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; "
        f"form-action 'none'; frame-ancestors 'none'; "
        f"style-src {_hash(style)}; script-src {_hash(script)}"
    )
    return page, policy


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

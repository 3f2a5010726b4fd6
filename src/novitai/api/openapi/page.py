# SPDX-License-Identifier: Apache-2.0
"""Serve the OpenAPI document and a page that shows it without resources of other servers.

Swagger UI shows it. The page is sandboxed: its scripts are of an origin of their own, so requests
of them have no cookie of a session. They could not read the document either, so the page contains
it, and the library's files may be used by other origins.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson
from starlette.requests import Request
from starlette.responses import Response

from novitai.api.http.answers import answer
from novitai.api.http.context import context_of
from novitai.api.http.endpoints import Endpoint, Endpoints
from novitai.api.http.static_files import KEPT, StaticFile
from novitai.web import LIBRARY

_PAGE: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>novitai API</title>
<link rel="icon" href="data:,">
{styles}
<style>{style}</style>
<noscript>This page needs JavaScript; the document is at openapi.json.</noscript>
<main id="api"></main>
<script type="application/json" id="document">{document}</script>
{scripts}
<script>{script}</script>
</html>
"""


OPENAPI_PATH: Final = "/openapi.json"
DOCS_PATH: Final = "/docs"
_HEADERS: Final = {
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_FILE_HEADERS: Final = (KEPT, (b"cross-origin-resource-policy", b"cross-origin"))


def install(endpoints: Endpoints, write: Callable[[], dict[str, Any]], built: Path) -> None:
    """Serve the document and the page; neither needs an API key.

    Args:
        endpoints: The endpoints to add to.
        write: Generates the document; called once, at the first request.
        built: The folder of the built files of the dashboard, with the library's.
    """
    library = sorted((built / LIBRARY).glob("*.*s"))
    written = cache(lambda: orjson.dumps(write()))
    shown = cache(lambda: _page(written(), [path.name for path in library]))

    async def document(request: Request) -> Response:
        context_of(request).route = OPENAPI_PATH
        return answer(written())

    async def docs(request: Request) -> Response:
        context_of(request).route = DOCS_PATH
        page, policy = shown()
        return Response(page, 200, {**_HEADERS, "Content-Security-Policy": policy}, "text/html")

    endpoints.add(OPENAPI_PATH, "GET", document)
    endpoints.add(DOCS_PATH, "GET", docs)
    for path in library:
        endpoints.add(f"{DOCS_PATH}/{path.name}", "GET", _file(path))


def _file(path: Path) -> Endpoint:
    read = cache(lambda: StaticFile(path, _FILE_HEADERS))

    async def file(request: Request) -> Response:
        context_of(request).route = f"{DOCS_PATH}/{{file}}"
        return await read().response(request)

    return file


def _page(document: bytes, library: list[str]) -> tuple[bytes, str]:
    """Return the page with a document, and its policy.

    Args:
        document: The OpenAPI document.
        library: The names of the library's scripts and styles.
    """
    folder = files("novitai.api.openapi") / "static"
    script = (folder / "docs.js").read_text("utf-8")
    page = _PAGE.format(
        # Relative to `/docs` and to `/v1/docs`.
        styles=_each(library, ".css", '<link rel="stylesheet" href="docs/{}">'),
        scripts=_each(library, ".js", '<script src="docs/{}"></script>'),
        style=(folder / "docs.css").read_text("utf-8"),
        script=script,
        # Without `<`, no text in the document ends the element.
        document=document.decode().replace("<", "\\u003c"),
    )
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; sandbox allow-scripts; "
        f"style-src 'self' 'unsafe-inline'; script-src 'self' {_hash(script)}"
    )
    return page.encode(), policy


def _each(names: list[str], suffix: str, element: str) -> str:
    return "\n".join(element.format(name) for name in names if name.endswith(suffix))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

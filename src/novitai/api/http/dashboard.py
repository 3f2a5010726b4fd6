# SPDX-License-Identifier: Apache-2.0
"""Serve the dashboard: its page at `/` and at the paths of its views, and its files.

The files are built in advance, and the name of each file in `assets/` has a digest of its content.
So browsers keep these files for good, and ask for the page each time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from novitai.api.http.accept import JSON, preferred
from novitai.api.http.browsers import Browsers
from novitai.api.http.context import context_of
from novitai.api.http.endpoints import Endpoints
from novitai.api.http.errors import not_found
from novitai.api.http.static_files import FRESH, KEPT, StaticFile
from novitai.errors import NotFound
from novitai.web import LIBRARY, PAGE

ROOT: Final = "/"
ASSETS: Final = "/assets"
HTML: Final = "text/html"
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
"""The Content-Security-Policy: only own files, and text never becomes markup or a script."""
_OTHERS: Final = (ASSETS, "/api", "/docs", "/openapi.json", "/health", "/metrics")
"""No view of the dashboard is at or below these paths."""
_PROTECTED: Final = (
    (b"content-security-policy", POLICY.encode()),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


def install(endpoints: Endpoints, browsers: Browsers, folder: Path) -> None:
    """Serve the built files in a folder; none of them needs an API key.

    Without built files, `/` is 404 and says so.
    """
    files = _read(folder)
    page = files.pop(ROOT + PAGE, None)

    async def root(request: Request) -> Response:
        context_of(request).route = ROOT
        if page is None:
            raise NotFound(
                "This installation has no dashboard, because its files were not built; the API is "
                "described at /docs"
            )
        browsers.check_host(request.scope)
        return await page.response(request)

    async def other(request: Request) -> Response:
        """Answer a path that no route has: a file, a view of the dashboard, or nothing."""
        path, context = request.scope["path"], context_of(request)
        file = files.get(path)
        if file is not None:
            browsers.check_host(request.scope)
            context.route = f"{ASSETS}/{{file}}" if path.startswith(ASSETS) else path
            return await file.response(request)
        if page is None or _is_other(path) or preferred(context.accept, (JSON, HTML)) != HTML:
            raise not_found()
        return await root(request)

    endpoints.add(ROOT, "GET", root)
    endpoints.fall_back(other)


def _read(folder: Path) -> dict[str, StaticFile]:
    """Read the files in a folder, by the path of their URL; nothing if there is no folder.

    Those of the API's page, which has a policy of its own, are left out.
    """
    assets = folder / ASSETS.strip("/")
    return {
        f"/{path.relative_to(folder).as_posix()}": StaticFile(
            path, (KEPT if assets in path.parents else FRESH, *_PROTECTED)
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file() and folder / LIBRARY not in path.parents
    }


def _is_other(path: str) -> bool:
    return any(path == one or path.startswith(f"{one}/") for one in _OTHERS)

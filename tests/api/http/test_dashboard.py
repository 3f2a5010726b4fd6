# SPDX-License-Identifier: Apache-2.0
"""The dashboard's page and files."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest

from tests.api.application import Api, ApiFactory

HOST = {"Host": "localhost:8080"}
NAVIGATION = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", **HOST}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
)
PAGE = b"<!doctype html><title>novitai</title>"


@pytest.fixture
async def built(factory: ApiFactory, tmp_path: Path) -> Api:
    """An application with built files."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(PAGE)
    (folder / "favicon.svg").write_text("<svg/>")
    for name in ("index-B1x2y3z4.js", "index-B1x2y3z4.css", "mono-B1x2y3z4.woff2", "a.unknown"):
        (folder / "assets" / name).write_text(name)
    (tmp_path / "secret").write_text("not served")
    return await factory.make(dashboard=folder)


def is_page(answer: httpx2.Response) -> bool:
    """Whether an answer is the page."""
    return answer.status_code == 200 and answer.content == PAGE


async def test_the_page(built: Api) -> None:
    """Anyone gets it at `/`, with the policy of the contract, and no browser stores it."""
    answer = await built.call("GET", "/", scope=None, headers=HOST)
    assert is_page(answer)
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert answer.headers["Content-Security-Policy"] == POLICY
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers["Cache-Control"] == "no-store"
    head = await built.call("HEAD", "/", scope=None, headers=HOST)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Length"] == str(len(PAGE))


@pytest.mark.parametrize(
    ("name", "media_type", "kept"),
    [
        ("assets/index-B1x2y3z4.js", "text/javascript; charset=utf-8", True),
        ("assets/index-B1x2y3z4.css", "text/css; charset=utf-8", True),
        ("assets/mono-B1x2y3z4.woff2", "font/woff2", True),
        ("assets/a.unknown", "application/octet-stream", True),
        ("favicon.svg", "image/svg+xml; charset=utf-8", False),
    ],
)
async def test_the_files(built: Api, name: str, media_type: str, kept: bool) -> None:
    """Files in `assets/` are kept for good, others are not; each has the policy of the page."""
    answer = await built.call("GET", f"/{name}", scope=None, headers=HOST)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == media_type
    kept_for = "public, max-age=31536000, immutable" if kept else "no-store"
    assert answer.headers["Cache-Control"] == kept_for
    assert answer.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0", False), ("br", False), ("", False)],
)
async def test_large_texts_are_compressed(
    factory: ApiFactory, tmp_path: Path, accepted: str, compressed: bool
) -> None:
    """A client that accepts gzip gets a large text compressed."""
    folder = tmp_path / "static"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_bytes(PAGE)
    (folder / "assets/a-B1x2y3z4.js").write_text("large;" * 1000)
    api = await factory.make(dashboard=folder)
    for _ in range(2):
        answer = await api.call(
            "GET",
            "/assets/a-B1x2y3z4.js",
            scope=None,
            headers={**HOST, "Accept-Encoding": accepted},
        )
        assert answer.text == "large;" * 1000
        assert (answer.headers.get("Content-Encoding") == "gzip") == compressed
        assert (int(answer.headers["Content-Length"]) < 1000) == compressed
        assert answer.headers["Vary"] == "Accept-Encoding"


@pytest.mark.parametrize("path", ["/instances", "/instances/inst_1?tab=events", "/apidocs", "/x"])
async def test_a_view_gets_the_page(built: Api, path: str) -> None:
    """A navigation of a browser to any other path gets the page, whose script shows the view."""
    assert is_page(await built.call("GET", path, scope=None, headers=NAVIGATION))


@pytest.mark.parametrize(
    "path",
    [
        "/api",
        "/api/x",
        "/health/x",
        "/metrics/x",
        "/docs/x",
        "/openapi.json/x",
        "/assets",
        "/assets/gone-B1x2y3z4.js",
        "/assets/%2e%2e/%2e%2e/secret",
    ],
)
async def test_other_paths_are_not_found(built: Api, path: str) -> None:
    """Paths of the API and missing files stay 404 with the error envelope."""
    answer = await built.call("GET", path, scope=None, headers=NAVIGATION)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "accept"),
    [
        ("GET", None),
        ("GET", "*/*"),
        ("GET", "application/json"),
        ("GET", "text/html;q=0.5, application/json"),
        ("POST", "text/html"),
        ("DELETE", "text/html"),
    ],
)
async def test_only_a_navigation_gets_the_page(built: Api, method: str, accept: str | None) -> None:
    """Programs, and methods other than GET, get 404 for an unknown path."""
    headers = {**HOST, "Accept": accept or ""}
    answer = await built.call(method, "/instances", scope=None, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", ["/", "/instances", "/assets/index-B1x2y3z4.js"])
async def test_another_name_is_refused(built: Api, path: str) -> None:
    """Under a name that is not ours, there is neither the page nor a file."""
    headers = {**NAVIGATION, "Host": "evil.example"}
    answer = await built.call("GET", path, scope=None, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "HOST_NOT_ALLOWED")


async def test_an_installation_without_built_files(factory: ApiFactory, tmp_path: Path) -> None:
    """`/` is 404 and says why; other paths are 404 as ever."""
    api = await factory.make(dashboard=tmp_path / "missing")
    answer = await api.call("GET", "/", scope=None, headers=NAVIGATION)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "NOT_FOUND")
    assert "not built" in answer.json()["error"]["message"]
    answer = await api.call("GET", "/instances", scope=None, headers=NAVIGATION)
    assert answer.status_code == 404
    assert "not built" not in answer.json()["error"]["message"]

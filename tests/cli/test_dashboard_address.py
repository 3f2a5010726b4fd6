# SPDX-License-Identifier: Apache-2.0
"""The address with a one-time code that a server shows to the user who starts it."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from novitai import web
from novitai.app import Application, Outside
from novitai.cli.dashboard_address import dashboard_address
from novitai.ids import Ids
from novitai.settings import Settings
from novitai.testing import ManualClock
from tests.lifecycle.world import NO_CERTIFICATES, settings_for

PUBLIC = "https://novitai.example.com"


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a built page."""
    folder = tmp_path / "static"
    folder.mkdir()
    (folder / web.PAGE).touch()
    monkeypatch.setattr(web, "BUILT", folder)
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with a key of their own."""
    return settings_for(f"sqlite:///{tmp_path}/novitai.db", tmp_path)


@pytest.fixture
async def app(settings: Settings, clock: ManualClock) -> AsyncIterator[Application]:
    """An application with a first key, which is not started."""
    made = await Application.open(settings, clock, Ids(), outside=Outside(tls=NO_CERTIFICATES))
    await made.keys.ensure_first_key()
    yield made
    await made.stop()


@pytest.mark.parametrize(
    ("bound", "host", "place"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.0.0.2", "127.0.0.2", "127.0.0.2"),
        ("127.0.0.1", "localhost", "localhost"),
        ("127.0.0.1", "my-machine", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "127.0.0.1"),  # noqa: S104 - an address that a user may choose
        ("::1", "::1", "[::1]"),
        ("::", "::", "[::1]"),
    ],
)
async def test_the_address_is_one_that_browsers_may_use(
    app: Application, bound: str, host: str, place: str
) -> None:
    """It is a loopback address on which the server listens, and its code logs in."""
    family = socket.AF_INET6 if ":" in bound else socket.AF_INET
    with socket.socket(family) as listening:
        listening.bind((bound, 0))
        port = listening.getsockname()[1]
        address = await dashboard_address(app, listening, host=host)
    assert address is not None
    page, _, code = address.partition("/#code=")
    assert page == f"http://{place}:{port}"
    begun = await app.sessions.begin_with_code(code)
    assert begun is not None
    assert begun.caller.is_admin


async def test_the_public_url_goes_first(
    settings: Settings, clock: ManualClock, built: Path
) -> None:
    """It is where browsers reach the server; without built files, there is no address."""
    settings = settings.model_copy(update={"public_url": PUBLIC})
    app = await Application.open(settings, clock, Ids(), outside=Outside(tls=NO_CERTIFICATES))
    await app.keys.ensure_first_key()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = await dashboard_address(app, listening)
        (built / web.PAGE).unlink()
        without = await dashboard_address(app, listening)
    await app.stop()
    assert address is not None
    assert address.startswith(f"{PUBLIC}/#code=")
    assert without is None

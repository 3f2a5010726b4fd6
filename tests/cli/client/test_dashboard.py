# SPDX-License-Identifier: Apache-2.0
"""`novitai dashboard` opens the page of the server, logged in."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.cli.client.program import WITHIN, Program
from tests.live import ADMIN_KEY, LiveServer, live


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server with a page."""
    page = tmp_path / "static" / "index.html"
    page.parent.mkdir()
    page.write_text("<!doctype html>")
    url = f"sqlite:///{tmp_path}/novitai.db"
    with live(url, tmp_path, dashboard=page.parent) as made:
        yield made


def env_of(server: LiveServer) -> dict[str, str]:
    """The environment of a command for a server, without a browser."""
    return {
        "NOVITAI_URL": server.url,
        "NOVITAI_API_KEY": ADMIN_KEY,
        "BROWSER": "",
        "DISPLAY": "",
    }


def logs_in(server: LiveServer, address: str) -> bool:
    """Whether the code in an address logs a browser in."""
    found = re.fullmatch(rf"{server.url}/#code=([A-Za-z0-9_-]{{43}})", address)
    assert found
    answer = server.http.post("/api/session", json={"code": found[1]})
    return answer.status_code == 204


@pytest.mark.parametrize("command", [["dashboard"], ["open", "any", "dashboard"]])
def test_the_dashboard_opens_logged_in(
    program: Program, server: LiveServer, command: list[str]
) -> None:
    """The browser gets an address whose code logs in once; the terminal does not show it."""
    seen = program.folder / "seen"
    browser = program.folder / "browser"
    browser.write_text(f'#!/bin/sh\nprintf "%s" "$1" > {seen}\n')
    browser.chmod(0o755)
    ran = program.process(*command, env={**env_of(server), "BROWSER": f"{browser} %s"})
    assert ran.code == 0, ran
    address = seen.read_text()
    assert f"opened {server.url}\n" in ran.err
    assert "code" not in ran.out + ran.err
    assert logs_in(server, address)
    assert not logs_in(server, address)


def test_without_a_browser_the_address_is_printed(program: Program, server: LiveServer) -> None:
    """It is the only line on standard output."""
    ran = program.process("dashboard", env={**env_of(server), "PATH": str(program.folder)})
    assert ran.code == 0, ran
    assert logs_in(server, ran.out.removesuffix("\n"))


BUILT = """
import sys
from pathlib import Path
from novitai import web
web.BUILT = Path(sys.argv.pop(1))
from novitai.cli.entry import main
main()
"""
"""A program that is `novitai` with other built files."""


def serve(folder: Path, output: int) -> subprocess.Popen[bytes]:
    """Start a server with a page, whose standard output is a file descriptor."""
    page = folder / "static" / "index.html"
    page.parent.mkdir(exist_ok=True)
    page.write_text("<!doctype html>")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "NOVITAI_DATA_DIR": str(folder / "data"),
        "NOVITAI_ADMIN_API_KEY": ADMIN_KEY,
        "NOVITA_API_KEY": "unused",
        "NOVITAI_UPSTREAM_URL": "http://127.0.0.1:9",
    }
    return subprocess.Popen(
        [sys.executable, "-c", BUILT, str(page.parent), "serve", "--port", "0"],
        env=env,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def read_until(output: int, pattern: str) -> str:
    """Read an output until a pattern is in it."""
    shown, deadline = b"", time.monotonic() + WITHIN
    while not re.search(pattern, shown.decode()):
        left = deadline - time.monotonic()
        assert left > 0, shown
        if select.select([output], [], [], left)[0]:
            shown += os.read(output, 65536)
    return shown.decode().replace("\r\n", "\n")


@contextmanager
def running(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Stop a process at the end."""
    try:
        yield
        process.send_signal(signal.SIGTERM)
        assert process.wait(WITHIN) == 0
    finally:
        process.kill()
        process.wait(WITHIN)


def test_a_server_on_a_terminal_shows_the_address(tmp_path: Path) -> None:
    """The line after its URL has an address that logs in."""
    master, slave = pty.openpty()
    process = serve(tmp_path, slave)
    os.close(slave)
    with running(process):
        shown = read_until(master, r"#code=\S+\s")
        found = re.fullmatch(
            r"novitai: listening on (\S+)\nnovitai: the dashboard, .* within 60 s: (\S+)\n", shown
        )
        assert found, shown
        page, _, code = found[2].partition("/#code=")
        assert page == found[1]
        answer = httpx2.post(f"{page}/api/session", json={"code": code}, trust_env=False)
        assert answer.status_code == 204
    os.close(master)


def test_a_server_without_a_terminal_shows_no_code(tmp_path: Path) -> None:
    """Its standard output may be kept in a file."""
    reading, writing = os.pipe()
    process = serve(tmp_path, writing)
    os.close(writing)
    with running(process):
        read_until(reading, r"listening on \S+\n")
    assert os.read(reading, 65536) == b""
    os.close(reading)


def test_a_server_without_a_dashboard(program: Program, tmp_path: Path) -> None:
    """The exit code is 3, and the message says so."""
    url = f"sqlite:///{tmp_path}/novitai.db"
    with live(url, tmp_path, dashboard=tmp_path / "missing") as server:
        ran = program.process("dashboard", env=env_of(server))
    assert ran.code == 3
    assert "has no dashboard" in ran.err


def test_a_name_that_browsers_may_not_use(program: Program, tmp_path: Path) -> None:
    """The public URL is opened, although the command reaches the server by another name."""
    url = f"sqlite:///{tmp_path}/novitai.db"
    settings = {"public_url": "https://novitai.example.com"}
    with live(url, tmp_path, settings=settings) as server:
        # Another name for the loopback that is not the loopback's own.
        elsewhere = {**env_of(server), "NOVITAI_URL": server.url.replace("127.0.0.1", "0.0.0.0")}  # noqa: S104 - a client's address
        ran = program.process("dashboard", env={**elsewhere, "PATH": str(program.folder)})
    assert ran.code == 0, ran
    assert ran.out.startswith("https://novitai.example.com/#code=")

# SPDX-License-Identifier: Apache-2.0
"""The commands of the pages for operators: calls run against a live server, and names exist."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import typer.main
import yaml
from typer.core import TyperGroup

from novitai.cli.main import app
from tests.blackbox.harness import ADMIN_KEY, Sandbox, Server
from tests.docs.pages import ROOT, page
from tests.services import PostgresqlServer

PAGES = (
    "how-to/run-in-a-container.md",
    "how-to/run-under-systemd.md",
    "how-to/from-one-process-to-many.md",
    "how-to/end-tls-at-a-proxy.md",
    "how-to/runbook.md",
    "how-to/watch-with-prometheus.md",
)
_BLOCK = re.compile(r"^( *)```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_STREAMS = "/api/events/stream"
_TIMED_OUT = 28
"""The exit code of curl after `--max-time`."""
CHECKED = {"curl", "novitai", "docker", "systemctl", "journalctl", "psql"}
PLAIN = {"install", "cp", "make", "python3", "echo", "export", "caddy", "nginx", "promtool"}
"""Programs whose arguments are checked for paths of the project; tests elsewhere start the last."""
OTHER = {"pip", "df", "kill"}


def commands() -> Iterator[tuple[str, str]]:
    """Return each command of the pages, with its page."""
    for name in PAGES:
        for _, block in _BLOCK.findall(page(name)):
            for line in block.splitlines():
                assert line.strip().startswith("$ "), f"{name}: {line}"
                yield name, line.strip().removeprefix("$ ")


def program(command: str) -> str:
    """Return the program of a command, without settings before it and without its folder."""
    words = shlex.split(command)
    return Path(next(word for word in words if not re.match(r"[A-Z_]+=", word))).name


def of(name: str) -> list[str]:
    """Return the commands that start a program."""
    found = [command for _, command in commands() if program(command) == name]
    assert found
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start an emulator and a server."""
    sandbox = Sandbox(tmp_path_factory.mktemp("operations"))
    sandbox.emulator()
    yield sandbox.server()
    sandbox.close()


def shell(command: str, server: Server) -> subprocess.CompletedProcess[str]:
    """Run a command of a page against the server."""
    for address in ("http://127.0.0.1:8080", "https://novitai.example.com"):
        command = command.replace(address, server.url)
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(server.process._out.parent),
        "URL": server.url,
        "KEY": ADMIN_KEY,
        "NOVITAI_URL": server.url,
        "NOVITAI_API_KEY": ADMIN_KEY,
    }
    return subprocess.run(
        ["bash", "-c", command], env=env, capture_output=True, text=True, check=False
    )


def test_every_command_is_checked() -> None:
    """Each command of the pages starts a program that a test of this module knows."""
    assert {program(command) for _, command in commands()} == CHECKED | PLAIN | OTHER


@pytest.mark.blackbox
def test_every_call_is_answered(server: Server) -> None:
    """Each curl command gets an answer: a success, or for an invented ID a 404."""
    for command in of("curl"):
        streams = _STREAMS in command
        done = shell(f"{command} --max-time {2 if streams else 60} -w '\\n%{{http_code}}'", server)
        assert done.returncode == (_TIMED_OUT if streams else 0), f"{command}: {done.stderr}"
        status = done.stdout.rpartition("\n")[2]
        assert status == ("404" if "/adopt" in command else "200"), f"{command}: {done.stdout}"
        if streams:
            assert done.stdout.startswith("retry:")


@pytest.mark.blackbox
def test_every_client_command_works(server: Server) -> None:
    """Each client command of the pages ends with 0."""
    ran = [one for one in of("novitai") if one.startswith("novitai ") and " keys " not in one]
    assert len(ran) >= 4
    for command in ran:
        done = shell(command, server)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def known(words: list[str]) -> bool:
    """Whether the words after `novitai` are a command of the code, with options that it has."""
    command: Any = typer.main.get_command(app)
    while words and isinstance(command, TyperGroup):
        command = command.commands.get(words.pop(0))
    if command is None:
        return False
    options = {option for each in command.params for option in each.opts}
    return {word for word in words if word.startswith("--")} <= options


def test_every_command_of_novitai_exists() -> None:
    """Each command of novitai exists with its options, also inside a container."""
    for command in [*of("novitai"), *(one for one in of("docker") if " exec " in one)]:
        if "novitai rm" in command:
            continue
        words = shlex.split(command)
        last = max(n for n, word in enumerate(words) if Path(word).name == "novitai")
        assert known(words[last + 1 :]), command


def test_every_container_exists() -> None:
    """Each compose file that a command names exists, and so does the service."""
    for command in of("docker"):
        words = shlex.split(command)
        if words[1] != "compose":
            assert "localhost/novitai" in words, command
            continue
        assert words[2] == "--file", command
        services = yaml.safe_load((ROOT / words[3]).read_text(encoding="utf-8"))["services"]
        if words[4] == "exec":
            assert words[5] in services, command
        if "--scale" in words:
            assert words[words.index("--scale") + 1].partition("=")[0] in services
        if "logs" in words:
            assert words[-1] in services


def test_every_unit_exists() -> None:
    """Each unit that a command names is one of deploy/systemd/."""
    units = {path.name.removesuffix(".service") for path in ROOT.glob("deploy/systemd/*.service")}
    for command in [*of("systemctl"), *of("journalctl")]:
        for word in shlex.split(command):
            if word.startswith("novitai-") and "*" not in word:
                assert re.sub(r"@.+", "@", word) in units, command


def test_every_path_of_the_project_exists() -> None:
    """Each path below deploy/ that a command names is in the project."""
    for name, command in commands():
        for word in shlex.split(command):
            if word.startswith("deploy/") and word != "deploy/.env":
                assert (ROOT / word).exists(), f"{name}: {command}"


@pytest.mark.postgresql
def test_every_statement_is_valid(postgresql_server: PostgresqlServer) -> None:
    """PostgreSQL runs each statement; 0 is the number of no process."""
    with psycopg.connect(postgresql_server.url, autocommit=True) as connection:
        for command in of("psql"):
            statement = shlex.split(command)[2].replace("PID", "0")
            connection.execute(statement.encode())

# SPDX-License-Identifier: Apache-2.0
"""One live server for the tests of the client commands, and a configuration for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import Sandbox
from tests.cli.client.program import Program, Served


@pytest.fixture(scope="session")
def command_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One `novitai emulator` and one `novitai serve`; each test uses names of its own."""
    folder: Path = tmp_path_factory.mktemp("commands")
    sandbox = Sandbox(folder)
    sandbox.env["NOVITAI_WEBHOOK_ALLOW_PRIVATE"] = "true"
    emulator = sandbox.emulator(speed=600)
    try:
        yield Served(sandbox, emulator, sandbox.server())
    finally:
        sandbox.close()


@pytest.fixture
def program(command_server: Served, tmp_path: Path) -> Program:
    """`novitai`, with a configuration of its own."""
    return Program(command_server, tmp_path)

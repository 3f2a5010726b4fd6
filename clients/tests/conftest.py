# SPDX-License-Identifier: Apache-2.0
"""A live server with the emulator, and folders with the generators, for `make test-clients`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from clients.tests.generators import TYPESCRIPT, install_npm, install_python
from tests.live import LiveServer, live


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Start a server."""
    folder = tmp_path_factory.mktemp("server")
    with live(f"sqlite:///{folder}/novitai.db", folder, speed=240) as running:
        yield running


@pytest.fixture(scope="session")
def document(server: LiveServer) -> bytes:
    """Return the OpenAPI document as the server sends it."""
    answer = server.http.get("/openapi.json")
    assert answer.status_code == 200
    return answer.content


@pytest.fixture(scope="session")
def typescript(document: bytes) -> Path:
    """Return the folder with the TypeScript generators and the document."""
    install_npm()
    (TYPESCRIPT / "generated").mkdir(exist_ok=True)
    (TYPESCRIPT / "generated/openapi.json").write_bytes(document)
    return TYPESCRIPT


@pytest.fixture(scope="session")
def python() -> Path:
    """Return the folder with the programs of the Python generator."""
    return install_python()

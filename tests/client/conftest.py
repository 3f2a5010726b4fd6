# SPDX-License-Identifier: Apache-2.0
"""A server that answers as the OpenAPI document of the whole application says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.client.documented import DocumentedServer, Schema
from tests.live import live


@pytest.fixture(scope="session")
def document(tmp_path_factory: pytest.TempPathFactory) -> Schema:
    """The OpenAPI document, as it is served."""
    folder: Path = tmp_path_factory.mktemp("document")
    with live(f"sqlite:///{folder}/novitai.db", folder) as server:
        served: Schema = json.loads(server.http.get("/openapi.json").content)
    return served


@pytest.fixture
def documented(document: Schema) -> DocumentedServer:
    """A server with a response to every operation."""
    return DocumentedServer(document)

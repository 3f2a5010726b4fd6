# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document, as it is served."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.application import Api


@pytest.fixture
async def document(api: Api) -> dict[str, Any]:
    """Return the document as it is served."""
    answer = await api.call("GET", "/openapi.json", scope=None)
    assert answer.status_code == 200
    body: dict[str, Any] = answer.json()
    return body

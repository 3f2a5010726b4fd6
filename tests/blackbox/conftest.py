# SPDX-License-Identifier: Apache-2.0
"""Fixtures of tests that start real processes, each test in its own temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import Sandbox


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test in this folder as `blackbox`."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.blackbox)


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    """Starts processes for one test; they end with it, and must not have written a secret."""
    made = Sandbox(tmp_path)
    yield made
    made.close()

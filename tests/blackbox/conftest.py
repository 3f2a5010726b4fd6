# SPDX-License-Identifier: Apache-2.0
"""A house for each test: real processes in a temporary folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.blackbox.harness import House


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test of this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.blackbox)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    """Processes that end with the test; none of them may ever have said a secret."""
    made = House(tmp_path)
    yield made
    made.close()

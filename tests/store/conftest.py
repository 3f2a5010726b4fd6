# SPDX-License-Identifier: Apache-2.0
"""A fixture for a transaction that blocks a thread of the database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.transactions import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A transaction function that blocks a thread; it is opened when the test ends, or earlier."""
    made = Gate()
    yield made
    made.open()

# SPDX-License-Identifier: Apache-2.0
"""A transaction that holds a thread of the database."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.store.transactions import Gate


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A transaction function to hold a thread with, opened at the latest when the test ends."""
    made = Gate()
    yield made
    made.open()

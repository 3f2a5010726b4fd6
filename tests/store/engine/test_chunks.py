# SPDX-License-Identifier: Apache-2.0
"""Splitting long lists of IDs."""

from __future__ import annotations

import pytest

from novitai.store.engine.chunks import CHUNK, chunks


@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_every_item_comes_once_and_in_order(count: int) -> None:
    """The parts joined are the list, and no part is empty or too large."""
    parts = list(chunks(range(count)))
    assert [item for part in parts for item in part] == list(range(count))
    assert all(1 <= len(part) <= CHUNK for part in parts)

# SPDX-License-Identifier: Apache-2.0
"""A slice of the mixed load; `make soak SOAK=load` runs for hours."""

from __future__ import annotations

import pytest

from tests.chaos import soak

pytestmark = pytest.mark.blackbox


def test_a_server_under_mixed_load_keeps_its_promises() -> None:
    """Each accepted request becomes true, and each process and file is measured."""
    table, _ = soak.run(2, every=1)
    assert ", 0 broken promises" in table, table
    for measure in ("memory, MB", "files", "threads", "WAL, MB", "log, bytes a request"):
        assert measure in table


@pytest.mark.parametrize(
    ("values", "flat"), [([100.0] * 50, True), ([100.0 + each for each in range(50)], False)]
)
def test_growth_is_found(values: list[float], flat: bool) -> None:
    """A measure that is higher at the end than after warming up grows."""
    series = soak.Series("serve")
    for value in values:
        series.add("memory, MB", value)
    assert [same for *_, same in series.rows()] == [flat]

# SPDX-License-Identifier: Apache-2.0
"""Messages over many receivers, some of them dead, while workers are killed.

TEST_FULL_STORM=1 runs it in full size, as `python -m benchmarks webhooks` does.
"""

from __future__ import annotations

import os

import pytest

from benchmarks.groups.webhooks import Outcome, Plan, storm

FULL = os.environ.get("TEST_FULL_STORM") == "1"
SMALL = Plan(messages=240, receivers=9, dead=3, instances_each=3, per_second=80)


@pytest.mark.postgresql
@pytest.mark.parametrize("workers", [1, 2] if FULL else [1])
async def test_nothing_is_lost_or_out_of_order(
    postgresql_database_url: str, workers: int, undocumented_events: list[str]
) -> None:
    """After three SIGKILLs: 0 lost, 0 out of order, duplicates have the same ID."""
    plan = Plan(workers=workers) if FULL else SMALL
    found = await storm(postgresql_database_url, plan)
    undocumented_events.clear()  # the messages are numbered, which no event of the server is
    assert found.sent == plan.messages
    assert (found.lost, found.out_of_order) == (0, 0)
    assert (found.strange_duplicates, found.unverified) == (0, 0)
    # A kill repeats only the messages in delivery.
    assert found.duplicates <= 25 * plan.kills
    if FULL and workers == 2:
        assert Outcome.p99(found.latencies) < 1.0

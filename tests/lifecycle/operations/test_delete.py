# SPDX-License-Identifier: Apache-2.0
"""When a deletion is over, judged by what listings lacked."""

from __future__ import annotations

import pytest

from novitai.domain.instance import Observed
from novitai.domain.operation import Operation, OperationKind
from novitai.lifecycle.operations.delete import (
    INCOMPLETE_LISTINGS_WITHOUT,
    LISTINGS_WITHOUT,
    is_over,
    seems_over,
)
from novitai.lifecycle.operations.runner import Claimed
from novitai.store.queries.coordination import Looked
from tests.domain.making import an_instance

ASKED = 1_000_000


def claimed(seen: Observed, *, accepted: bool = True) -> Claimed:
    """A deletion that asked Novita at `ASKED`, and what listings have shown."""
    memory = {"asked_at": ASKED, "asks": 1, "accepted": accepted}
    operation = Operation(
        "op_1", OperationKind.DELETE, "inst_1", "remove", ASKED, ASKED, memory=memory
    )
    return Claimed(operation, an_instance(observed=seen), (), Looked(incomplete_count=1))


@pytest.mark.parametrize("accepted", [True, False])
def test_two_complete_listings_after_the_call_end_it(*, accepted: bool) -> None:
    """They do if Novita took the call; one listing does not."""
    twice = Observed(missing_since=ASKED + 1, missing_count=LISTINGS_WITHOUT)
    assert is_over(claimed(twice, accepted=accepted)) is accepted
    once = Observed(missing_since=ASKED + 1, missing_count=LISTINGS_WITHOUT - 1)
    assert not is_over(claimed(once))


def test_absences_from_before_the_call_do_not_end_it() -> None:
    """Until a listing after the call counts from one again, the count is that of before."""
    before = Observed(
        missing_since=ASKED,
        missing_count=9,
        unlisted_since=ASKED,
        unlisted_count=9,
    )
    assert not is_over(claimed(before))
    assert not seems_over(claimed(before))


def test_incomplete_listings_after_the_call_call_for_a_look() -> None:
    """Three in a row that lack it are worth asking for it by its id."""
    enough = Observed(unlisted_since=ASKED + 1, unlisted_count=INCOMPLETE_LISTINGS_WITHOUT)
    assert seems_over(claimed(enough))
    assert not is_over(claimed(enough))
    few = Observed(unlisted_since=ASKED + 1, unlisted_count=INCOMPLETE_LISTINGS_WITHOUT - 1)
    assert not seems_over(claimed(few))

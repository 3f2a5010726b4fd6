# SPDX-License-Identifier: Apache-2.0
"""The stored progress of an operation, and the effect of clock jumps on its times."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.progress import Call, PreviousState, Progress, from_json, to_json

STORED = [
    # Rows as version 0.1.0 wrote them before progress was typed.
    "{}",
    (
        '{"before":{"ready_at":1700000000123,"failed":false,"error_code":null,"error_message":null,'
        '"error_at":null},"told":null}'
    ),
    (
        '{"before":{"ready_at":null,"failed":true,"error_code":"READINESS_TIMEOUT","error_message":'
        '"Not ready","error_at":1700000000000},"told":"state: broken","confirmed":true}'
    ),
    (
        '{"before":{"ready_at":5,"failed":false,"error_code":null,"error_message":null,"error_at":null}'
        ',"told":null,"asked_at":1700000000001,"asks":2,"accepted":true,"unsure":false,'
        '"tried_at":1700000000000,"stumbles":0,"moved":true}'
    ),
    '{"stumbles":3,"tried_at":1700000000000,"unsure":true}',
    '{"rounds":5,"short_since":1700000000000,"tried_before":7}',
    '{"detour_at":1700000000002,"migrating_since":1700000000001}',
    (
        '{"asked_at":1,"asks":1,"accepted":true,"unsure":false,"tried_at":1,"stumbles":0,'
        '"not_found_at":1700000000009}'
    ),
]
"""Contents of the column `memory`, one row for each kind."""
OF_PREVIOUS = ("ready_at", "failed", "error_code", "error_message", "error_at")
TIMES = st.integers(min_value=1, max_value=2**53)
COUNTS = st.integers(min_value=0, max_value=1000)
MAYBE = st.none() | TIMES
TEXTS = st.none() | st.text(min_size=1)
PROGRESS = st.builds(
    Progress,
    call=st.builds(Call, MAYBE, COUNTS, st.booleans(), st.booleans(), MAYBE, COUNTS),
    previous=st.none() | st.builds(PreviousState, MAYBE, st.booleans(), TEXTS, TEXTS, MAYBE),
    known_error=TEXTS,
    confirmed=st.booleans(),
    urgent=st.booleans(),
    moved=st.booleans(),
    migrating_since=MAYBE,
    detour_at=MAYBE,
    not_found_at=MAYBE,
    rounds=COUNTS,
    short_since=MAYBE,
    tried_before=COUNTS,
)


@pytest.mark.parametrize("text", STORED)
def test_a_row_of_an_earlier_version_is_read_and_written_without_loss(text: str) -> None:
    """Stored keys keep their names and values; default values are left out."""
    before = orjson.loads(text)
    after = to_json(from_json(before))
    assert after == {name: value for name, value in before.items() if value not in (None, 0, False)}


@given(PROGRESS)
def test_what_is_stored_is_read_back(progress: Progress) -> None:
    """Every progress survives conversion to JSON and back."""
    assert from_json(orjson.loads(orjson.dumps(to_json(progress)))) == progress


@pytest.mark.parametrize(
    "text",
    ['{"asks":"2","accepted":1,"asked_at":true,"told":7,"before":[1],"rounds":null,"other":{}}'],
)
def test_values_of_a_wrong_type_count_as_absent(text: str) -> None:
    """Corrupt or unknown values count as absent."""
    assert from_json(orjson.loads(text)) == Progress()


def test_every_time_is_pulled_back_and_postponed() -> None:
    """A clock jump moves every field that holds a time."""
    times = Progress(
        call=Call(asked_at=100, tried_at=100),
        migrating_since=100,
        detour_at=100,
        not_found_at=100,
        short_since=100,
    )
    assert set(to_json(times.pulled_back(50, 60)).values()) == {60}
    assert times.pulled_back(100, 60) == times
    assert set(to_json(times.postponed(30, 500)).values()) == {130, 500}
    assert to_json(times.postponed(30, 500))["detour_at"] == 500
    assert set(to_json(times.postponed(900, 500)).values()) == {500}
    names = {name for name in to_json(times) if name.endswith(("_at", "_since"))}
    assert names == set(to_json(times))


def test_an_operation_that_was_held_back_has_its_time_again() -> None:
    """Running deadlines start again; those not begun stay so."""
    held = Progress(call=Call(asked_at=1, tried_at=2), migrating_since=3).held_back(50)
    assert to_json(held) == {
        "asked_at": 50,
        "tried_at": 50,
        "migrating_since": 50,
        "detour_at": 50,
    }
    assert to_json(Progress().held_back(50)) == {"detour_at": 50}

# SPDX-License-Identifier: Apache-2.0
"""Limits as they are set, changed and stored."""

from __future__ import annotations

from dataclasses import fields

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.limits import (
    LimitAction,
    LimitMemory,
    LimitsChange,
    LimitSettings,
    StopReason,
    limits_from_json,
    limits_to_json,
    memory_from_json,
    memory_to_json,
)

NUMBERS = st.none() | st.integers(1, 2**50)
SETTINGS = st.builds(
    LimitSettings,
    **{one.name: NUMBERS for one in fields(LimitSettings) if one.name != "on_limit"},
    on_limit=st.sampled_from(LimitAction),
)
COUNTS = st.integers(0, 2**50)
MEMORIES = st.builds(
    LimitMemory,
    set_at=COUNTS,
    delete_set_at=COUNTS,
    kept_minutes=COUNTS,
    extension_minutes=COUNTS,
    near=st.lists(st.sampled_from([one.value for one in StopReason])).map(tuple),
    reached=st.none() | st.sampled_from(StopReason),
    begun_at=NUMBERS,
    unenforced_told_at=NUMBERS,
    purge_told=NUMBERS,
)


@given(SETTINGS)
def test_stored_limits_are_read_back(limits: LimitSettings) -> None:
    """Every field survives."""
    assert limits_from_json(orjson.loads(orjson.dumps(limits_to_json(limits)))) == limits


@given(MEMORIES)
def test_a_stored_memory_is_read_back(memory: LimitMemory) -> None:
    """Every field survives."""
    assert memory_from_json(orjson.loads(orjson.dumps(memory_to_json(memory)))) == memory


@pytest.mark.parametrize("wrong", ["5", True, 1.5, [], {}, None])
def test_a_stored_value_of_a_wrong_type_counts_as_absent(wrong: object) -> None:
    """A row that another version wrote is still read."""
    names = [one.name for one in fields(LimitSettings)]
    assert limits_from_json(dict.fromkeys(names, wrong)) == LimitSettings()
    names = [one.name for one in fields(LimitMemory)]
    assert memory_from_json(dict.fromkeys(names, wrong)) == LimitMemory()


def test_a_patch_of_limits() -> None:
    """Named limits change, None removes one, and nothing is left of the last one."""
    before = LimitSettings(max_run_minutes=60, on_limit=LimitAction.DELETE)
    change = LimitsChange({"stop_at": 5, "on_limit": None})
    assert change.applied(before) == LimitSettings(max_run_minutes=60, stop_at=5)
    assert change.applied(None) == LimitSettings(stop_at=5)
    assert LimitsChange({"max_run_minutes": None, "on_limit": None}).applied(before) is None
    assert LimitsChange().applied(before) == before


def test_a_new_setting_counts_from_its_change() -> None:
    """The keeps of the run before the change do not lengthen it."""
    memory = LimitMemory(set_at=1, delete_set_at=1, kept_minutes=30, extension_minutes=30)
    before = LimitSettings(max_run_minutes=60, delete_after_stopped_minutes=60)
    other = memory.for_change(before, LimitSettings(max_run_minutes=90), 7)
    assert (other.set_at, other.extension_minutes, other.kept_minutes) == (7, 0, 30)
    assert other.delete_set_at == 7
    same = memory.for_change(
        before, LimitSettings(max_run_minutes=60, delete_after_stopped_minutes=60, stop_at=9), 7
    )
    assert (same.extension_minutes, same.delete_set_at) == (30, 1)


def test_settings_from_the_future_count_as_made_now() -> None:
    """After the clock went back."""
    memory = LimitMemory(set_at=100, delete_set_at=40)
    assert memory.pulled_back(60, 50) == LimitMemory(set_at=50, delete_set_at=40)

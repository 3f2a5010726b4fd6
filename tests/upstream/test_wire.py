# SPDX-License-Identifier: Apache-2.0
"""Single values in all forms that upstream may send."""

from __future__ import annotations

import pytest
from hypothesis import given

from novitai.upstream import wire
from novitai.upstream.wire import Json
from tests.upstream.strategies import ANYTHING


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (35000, 35000),
        ("35000", 35000),
        (" 7 ", 7),
        ("-1", -1),
        (60.0, 60),
        ("60.0", 60),
        ("", None),
        ("x", None),
        ("1.5", None),
        (1.5, None),
        (True, None),
        (None, None),
        ([1], None),
        ("٣", None),
        ("9" * 5000, None),
        (2**64, None),
        (float("inf"), None),
        (float("nan"), None),
    ],
)
def test_a_number_is_read_from_a_number_or_from_text(value: Json, read: int | None) -> None:
    """A number is read from a number or from text."""
    assert wire.integer(value) == read


@pytest.mark.parametrize(
    ("value", "read"),
    [
        ("1768435200", 1_768_435_200_000),
        (1768435200, 1_768_435_200_000),
        ("0", None),
        ("-1", None),
        ("", None),
        ("99999999999999", None),
    ],
)
def test_a_moment_is_unix_seconds_made_milliseconds(value: Json, read: int | None) -> None:
    """Unix seconds become milliseconds; "0" and "-1" are absent."""
    assert wire.moment(value) == read


@pytest.mark.parametrize(
    ("value", "read"),
    [(True, True), ("true", True), ("False", False), (1, True), (0, False), (2, None), ("", None)],
)
def test_a_truth_value_may_be_text(value: Json, read: bool | None) -> None:
    """A boolean may be text, and anything else is None rather than False."""
    assert wire.flag(value) is read


def test_text_holds_nothing_a_database_cannot_store() -> None:
    """Text has no NUL characters, which PostgreSQL cannot store."""
    assert wire.text("a\x00b") == "ab"


def test_an_object_may_come_as_a_list() -> None:
    """`node` is read as a list, as documented, and as an object, as observed."""
    assert wire.mapping([{"a": 1}, {"b": 2}]) == {"a": 1}
    assert wire.mapping({"a": 1}) == {"a": 1}
    assert wire.objects({"a": 1}) == [{"a": 1}]
    assert wire.objects([1, {"a": 1}, None]) == [{"a": 1}]


@given(ANYTHING)
def test_nothing_is_too_odd_to_be_read(value: Json) -> None:
    """No reader raises, and each returns its own type."""
    assert type(wire.text(value)) is str
    assert type(wire.mapping(value)) is dict
    assert all(type(row) is dict for row in wire.objects(value))
    assert wire.flag(value) in {True, False, None}
    for number in (wire.integer(value), wire.positive(value), wire.moment(value)):
        assert number is None or (type(number) is int and abs(number) < 2**63)

# SPDX-License-Identifier: Apache-2.0
"""The format, checksum, scopes and expiry of API keys."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.api_key import ApiKey, Scope, allows, in_order, make_key, well_formed
from novitai.ids import Ids


def test_a_key_has_the_promised_form() -> None:
    """A key is `nvt_`, 32 letters and digits, and 6 checksum characters."""
    key = make_key(Ids())
    assert re.fullmatch(r"nvt_[A-Za-z0-9]{38}", key)
    assert well_formed(key)
    assert key != make_key(Ids())


@given(seed=st.integers(), place=st.integers(min_value=4, max_value=41))
def test_one_wrong_character_is_found(seed: int, place: int) -> None:
    """The checksum detects any single wrong character, without a database query."""
    key = make_key(Ids(random.Random(seed)))
    wrong = "a" if key[place] != "a" else "b"
    assert well_formed(key)
    assert not well_formed(key[:place] + wrong + key[place + 1 :])


@pytest.mark.parametrize(
    "text", ["", "nvt_", "nvt_" + "a" * 38, "sk_live_" + "a" * 34, "nvt_" + "é" * 38]
)
def test_what_is_no_key_is_refused(text: str) -> None:
    """Tokens of other systems and truncated keys are rejected."""
    assert not well_formed(text)


def test_a_key_with_something_behind_it_is_refused() -> None:
    """Any text after a key, even a line feed, makes it invalid."""
    key = make_key(Ids())
    assert not well_formed(key + "\n")
    assert not well_formed(key + "a")


@pytest.mark.parametrize(
    ("held", "allowed"),
    [
        (Scope.READ, {Scope.READ}),
        (Scope.WRITE, {Scope.READ, Scope.WRITE}),
        (Scope.ADMIN, {Scope.READ, Scope.WRITE, Scope.ADMIN}),
    ],
)
def test_each_scope_includes_the_ones_below(held: Scope, allowed: set[Scope]) -> None:
    """`admin` includes `write`, which includes `read`, and not the reverse."""
    assert {scope for scope in Scope if allows(frozenset({held}), scope)} == allowed


def test_no_scope_allows_nothing() -> None:
    """A key without scopes allows nothing."""
    assert not any(allows(frozenset(), scope) for scope in Scope)


def test_scopes_are_shown_from_small_to_large() -> None:
    """The order of the scopes is fixed, in any order of input."""
    assert in_order([Scope.ADMIN, Scope.READ, Scope.READ]) == [Scope.READ, Scope.ADMIN]


def test_a_key_ends_at_its_expiry_to_the_millisecond() -> None:
    """A key is invalid from the millisecond of its expiry, and when revoked."""
    key = ApiKey("key_1", "ci", frozenset({Scope.READ}), created_at=0, expires_at=1000)
    assert key.usable(999)
    assert not key.usable(1000)
    assert not ApiKey("key_1", "ci", frozenset(), created_at=0, revoked_at=5).usable(6)

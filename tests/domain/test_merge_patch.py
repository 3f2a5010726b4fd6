# SPDX-License-Identifier: Apache-2.0
"""Merge patches (RFC 7396), and tags that are changed by them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.merge_patch import merge_patch
from novitai.domain.tags import is_tag_name, merged_tags

NAMES = st.sampled_from(["a", "b", "c", "d"])
VALUES = st.recursive(
    st.booleans() | st.integers() | st.text(max_size=3) | st.lists(st.none() | st.integers()),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)
PATCHES = st.recursive(
    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.none()),
    lambda inner: st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TAGS = st.dictionaries(NAMES, st.text(max_size=3), max_size=4)
TAG_PATCHES = st.dictionaries(NAMES, st.none() | st.text(max_size=3), max_size=4)


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_the_examples_of_the_rfc(target: Any, patch: Any, result: Any) -> None:
    """Every example of RFC 7396, appendix A, has its result."""
    assert merge_patch(target, patch) == result


@given(OBJECTS, st.dictionaries(NAMES, PATCHES, max_size=4))
def test_a_patch_sets_removes_and_keeps(target: dict[str, Any], patch: dict[str, Any]) -> None:
    """Members of the patch are set or removed, all others are kept, and a second time is no change.

    The target and the patch themselves do not change.
    """
    before, sent = repr(target), repr(patch)
    merged: Any = merge_patch(target, patch)
    assert (repr(target), repr(patch)) == (before, sent)
    for name in target.keys() | patch.keys() | merged.keys():
        if name not in patch:
            assert merged[name] == target[name]
        elif patch[name] is None:
            assert name not in merged
        elif not isinstance(patch[name], dict):
            assert merged[name] == patch[name]
    assert merge_patch(merged, patch) == merged


@given(TAGS, TAGS)
def test_there_is_a_patch_from_any_tags_to_any_others(
    before: dict[str, str], after: dict[str, str]
) -> None:
    """Setting the new tags and removing the missing ones leads from any tags to any others."""
    patch = {name: after.get(name) for name in before.keys() | after.keys()}
    assert merged_tags(before, patch) == after
    assert merged_tags(before, {}) == before
    assert merged_tags(before, None) == {}


@given(TAGS, TAG_PATCHES, TAG_PATCHES)
def test_a_later_patch_wins(
    tags: dict[str, str], first: dict[str, str | None], second: dict[str, str | None]
) -> None:
    """Two patches of tags in a row equal one patch in which the later value of a tag counts."""
    assert merged_tags(merged_tags(tags, first), second) == merged_tags(tags, {**first, **second})


@pytest.mark.parametrize("name", ["a", "0", "team", "a.b_c-d", "x" * 63])
def test_a_tags_name(name: str) -> None:
    """A name has 1 to 63 of a-z, 0-9, `.`, `_` and `-`."""
    assert is_tag_name(name)


@pytest.mark.parametrize("name", ["", "A", "-a", ".a", "_a", "a:b", "a b", "x" * 64, "ä", "a\n"])
def test_no_tags_name(name: str) -> None:
    """Other characters, a leading `.`, `_` or `-`, and 64 characters are rejected."""
    assert not is_tag_name(name)

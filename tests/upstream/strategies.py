# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for the tests of reading."""

from __future__ import annotations

from unicodedata import category

from hypothesis import strategies as st

from novitai.upstream.wire import Json

ANYTHING: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def is_plain(text: str) -> bool:
    """Say whether a text is one line without characters that control how it is shown.

    `str.isprintable` is stricter: it refuses spaces other than U+0020, joiners, and characters that
    Python's tables do not know yet.
    """
    unwanted = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
    return all(category(one) not in unwanted or one in "\u200c\u200d" for one in text)

# SPDX-License-Identifier: Apache-2.0
"""Hypothesis strategies for the tests of reading."""

from __future__ import annotations

from hypothesis import strategies as st

from novitai.upstream.wire import Json

ANYTHING: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)

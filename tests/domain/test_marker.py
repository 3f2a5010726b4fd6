# SPDX-License-Identifier: Apache-2.0
"""The upstream name and its marker, which identifies a create call."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.marker import MAX_UPSTREAM_NAME, Marker, read_marker, upstream_name

LOWER = string.ascii_lowercase + string.digits
markers = st.builds(
    Marker,
    st.text(LOWER, min_size=6, max_size=6),
    st.text(LOWER, min_size=16, max_size=16),
)
OURS = Marker("abc123", "0123456789abcdef")


@given(name=st.text(string.ascii_letters + string.digits + "-_", max_size=400), marker=markers)
def test_every_name_bears_its_marker(name: str, marker: Marker) -> None:
    """The marker is read back from any name, and names stay within 255 characters."""
    made = upstream_name(name, marker)
    assert read_marker(made) == marker
    assert len(made) <= MAX_UPSTREAM_NAME == 255
    assert re.fullmatch("[A-Za-z0-9-]+", made)
    assert made.startswith(name.replace("_", "-")[:200])


def test_a_name_is_made_as_the_contract_has_it() -> None:
    """The name is the user's name with hyphens, `-nv`, the installation ID, the attempt ID."""
    assert upstream_name("my_instance", OURS) == "my-instance-nvabc1230123456789abcdef"


@given(marker=markers)
def test_a_name_that_holds_a_marker_does_not_deceive(marker: Marker) -> None:
    """Only the last marker counts, even if the user's name looks like a marker."""
    assert read_marker(upstream_name(upstream_name("x", marker), OURS)) == OURS


@pytest.mark.parametrize(
    "name",
    [
        "",
        "my-instance",
        "nvabc1230123456789abcdef",
        "x-nvabc1230123456789abcde",
        "x-nvabc1230123456789abcdef0",
        "x-nvabc1230123456789abcdeF",
        "x-nvabc1230123456789abcdef-copy",
        "x-NVabc1230123456789abcdef",
        "x-nvabc123_0123456789abcde",
        "x-nvabc1230123456789abcdef\n",
    ],
)
def test_other_names_bear_none(name: str) -> None:
    """Names of other origin have no marker."""
    assert read_marker(name) is None

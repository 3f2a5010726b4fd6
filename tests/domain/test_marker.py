# SPDX-License-Identifier: Apache-2.0
"""Promises of the upstream name: a create call is found again by it, and by nothing else."""

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
    """It is read back from any name, within 255 characters that upstream takes."""
    made = upstream_name(name, marker)
    assert read_marker(made) == marker
    assert len(made) <= MAX_UPSTREAM_NAME == 255
    assert re.fullmatch("[A-Za-z0-9-]+", made)
    assert made.startswith(name.replace("_", "-")[:200])


def test_a_name_is_made_as_the_contract_has_it() -> None:
    """The user's name with hyphens, `-nv`, the installation, the attempt."""
    assert upstream_name("my_instance", OURS) == "my-instance-nvabc1230123456789abcdef"


@given(marker=markers)
def test_a_name_that_holds_a_marker_does_not_deceive(marker: Marker) -> None:
    """A user's name that looks like another's marker is no marker: only the last one counts."""
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
    """What is not ours is never taken for ours."""
    assert read_marker(name) is None

# SPDX-License-Identifier: Apache-2.0
"""Identifiers have the documented formats and are unique."""

from __future__ import annotations

import random
import re

from novitai.ids import Ids


def test_identifiers_have_their_shapes() -> None:
    """Identifiers have their formats; instance and request IDs contain their Unix second."""
    ids = Ids()
    assert re.fullmatch(r"inst_1697843200_[a-z0-9]{10,}", ids.instance(1_697_843_200_123))
    assert re.fullmatch(r"req_1697843200_[a-z0-9]+", ids.request(1_697_843_200_123))
    assert re.fullmatch(r"[a-z0-9]{6}", ids.installation())
    assert re.fullmatch(r"[a-z0-9]{16}", ids.attempt())
    assert re.fullmatch(r"[A-Za-z0-9]{32}", ids.key_body())


def test_identifiers_do_not_repeat() -> None:
    """Ten thousand IDs of the same millisecond are distinct."""
    ids = Ids()
    assert len({ids.instance(0) for _ in range(10_000)}) == 10_000


def test_a_source_makes_them_foretellable() -> None:
    """The same seed gives the same IDs."""
    one, two = Ids(random.Random(1)), Ids(random.Random(1))
    assert one.prefixed("op") == two.prefixed("op")


def test_jitter_stays_within_its_fraction() -> None:
    """Jitter is at most ten percent in either direction."""
    ids = Ids()
    assert all(9 <= ids.jitter(10) <= 11 for _ in range(1000))

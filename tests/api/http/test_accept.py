# SPDX-License-Identifier: Apache-2.0
"""Tests of content negotiation."""

from __future__ import annotations

import pytest

from novitai.api.http.accept import preferred, wants_problem

OFFERED = ["application/json", "text/plain", "application/openmetrics-text"]


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/plain", "text/plain"),
        ("text/*", "text/plain"),
        ("text/plain;version=0.0.4;q=0.5, */*;q=0.1", "text/plain"),
        ("text/plain;q=0.5, application/json", "application/json"),
        ("application/json;q=0.5, text/plain", "text/plain"),
        ("application/json, text/plain", "application/json"),
        ("text/html", "application/json"),
        (
            "application/openmetrics-text;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1",
            "application/openmetrics-text",
        ),
        ("text/plain;q=nonsense", "application/json"),
    ],
)
def test_the_most_wanted_is_chosen(accept: str, chosen: str) -> None:
    """The response is JSON unless `Accept` prefers another type."""
    assert preferred(accept, OFFERED) == chosen


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/problem+json", True),
        ("application/problem+json, application/json", True),
        ("application/json, application/problem+json;q=0.5", False),
        ("application/problem+json;q=0", False),
        ("*/*", False),
        ("application/*", False),
        ("", False),
    ],
)
def test_problems_are_sent_only_where_they_are_named(accept: str, wanted: bool) -> None:
    """The API reference's envelope is the default; `*/*` does not change it."""
    assert wants_problem(accept) is wanted

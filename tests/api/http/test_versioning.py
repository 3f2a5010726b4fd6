# SPDX-License-Identifier: Apache-2.0
"""Tests of API versions and deprecation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from starlette.responses import Response

from novitai.api.http.versioning import Deprecation, without_version
from novitai.api.routing.router import Route, RouteCall
from novitai.domain.api_key import Scope
from tests.api.application import ApiFactory

SINCE = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "stripped"),
    [
        ("/v1/api/instances", "/api/instances"),
        ("/v1", "/"),
        ("/v1/", "/"),
        ("/v2/api/instances", "/v2/api/instances"),
        ("/v11/api", "/v11/api"),
        ("/v1/v1/api", "/v1/api"),
        ("/api/v1", "/api/v1"),
    ],
)
def test_only_the_current_version_is_stripped(path: str, stripped: str) -> None:
    """Only one `/v1` at the start of the path is removed."""
    assert without_version(path) == stripped


def test_less_than_half_a_year_of_notice_is_refused_when_it_is_declared() -> None:
    """A short notice is found at start-up, not by a client."""
    with pytest.raises(ValueError, match="183"):
        Deprecation(SINCE, SINCE + timedelta(days=182), "https://example.com/")
    Deprecation(SINCE, SINCE + timedelta(days=183), "https://example.com/")


def test_a_time_without_an_offset_is_refused() -> None:
    """The times of a deprecation need an offset."""
    with pytest.raises(ValueError, match="offset"):
        Deprecation(SINCE.replace(tzinfo=None), SINCE, "https://example.com/")


async def test_one_declaration_is_told_on_every_answer(factory: ApiFactory) -> None:
    """The headers are on successes and errors, and the document marks the route as deprecated."""

    async def old(_call: RouteCall) -> Response:
        """Return a response as before the deprecation."""
        return Response(b"{}")

    api = await factory.make(
        extra=(
            Route(
                method="GET",
                path="/api/old",
                id="testRoute",
                handler=old,
                scope=Scope.READ,
                tag="Metrics",
                summary="Old",
                answers={200: None},
                deprecated=Deprecation(
                    SINCE, datetime(2026, 7, 3, tzinfo=UTC), "https://example.com/why"
                ),
            ),
        )
    )
    for scope, status in ((Scope.READ, 200), (None, 401)):
        answer = await api.call("GET", "/v1/api/old", scope=scope)
        assert answer.status_code == status
        assert answer.headers["Deprecation"] == "@1767225600"
        assert answer.headers["Sunset"] == "Fri, 03 Jul 2026 00:00:00 GMT"
        links = answer.headers.get_list("Link")
        assert '<https://example.com/why>; rel="deprecation"; type="text/html"' in links
        assert '<https://example.com/why>; rel="sunset"; type="text/html"' in links
    document = (await api.call("GET", "/openapi.json", scope=None)).json()
    assert document["paths"]["/api/old"]["get"]["deprecated"] is True
    assert "Deprecation" not in (await api.call("GET", "/api/instances")).headers

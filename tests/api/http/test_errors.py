# SPDX-License-Identifier: Apache-2.0
"""Tests of errors: all have the same envelope."""

from __future__ import annotations

import re

import pytest
from pydantic import TypeAdapter
from starlette.responses import Response
from structlog.testing import capture_logs

from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.errors import ErrorResponse, Problem
from novitai.domain.api_key import Scope
from novitai.errors import (
    ApiError,
    CircuitBreakerOpen,
    Conflict,
    FieldError,
    RequestTimeout,
    UpstreamTimeout,
    UpstreamUnavailable,
    ValidationFailed,
    WrongSecretKey,
)
from novitai.lifecycle.catalogue.upstream_errors import to_api_error
from novitai.upstream.errors import KeyRefused
from tests.api.application import CREATE, Api, ApiFactory
from tests.api.client import ApiProcess

SECRET = "hunter2"


async def defect(_call: RouteCall) -> Response:
    """Raise an unexpected exception."""
    raise ZeroDivisionError(SECRET)


def operation(path: str, handler: object) -> Route:
    """Declare a route that fails on purpose."""
    assert callable(handler)
    return Route(
        method="GET",
        path=path,
        id="testRoute",
        handler=handler,
        scope=None,
        tag="Health",
        summary="Break",
        answers={200: None},
    )


@pytest.fixture
async def broken(factory: ApiFactory) -> Api:
    """Return an application with failing routes."""
    return await factory.make(extra=(operation("/defect", defect),))


ERRORS: list[tuple[ApiError, int, str, str, bool]] = [
    (ValidationFailed("x"), 400, "VALIDATION_ERROR", "VALIDATION_ERROR", False),
    (RequestTimeout("x"), 408, "REQUEST_TIMEOUT", "TIMEOUT_ERROR", True),
    (Conflict("x"), 409, "INVALID_STATE", "CLIENT_ERROR", False),
    (Conflict("x", code="NO_CAPACITY"), 409, "NO_CAPACITY", "CLIENT_ERROR", True),
    (Conflict("x", code="Y", retry_after=1), 409, "Y", "CLIENT_ERROR", True),
    (UpstreamUnavailable("x"), 502, "EXTERNAL_API_ERROR", "EXTERNAL_API_ERROR", True),
    (
        to_api_error(KeyRefused("x", http_status=401)),
        502,
        "EXTERNAL_API_ERROR",
        "EXTERNAL_API_ERROR",
        False,
    ),
    (
        CircuitBreakerOpen("x", retry_after=7),
        503,
        "CIRCUIT_BREAKER_OPEN",
        "CIRCUIT_BREAKER_ERROR",
        True,
    ),
    (UpstreamTimeout("x"), 504, "UPSTREAM_TIMEOUT", "TIMEOUT_ERROR", True),
]


@pytest.mark.parametrize(("error", "status", "code", "category", "retryable"), ERRORS)
async def test_an_error_is_told_as_it_knows_itself(
    api: Api, error: ApiError, status: int, code: str, category: str, retryable: bool
) -> None:
    """Status, code, category and `retryable` come from the error class."""
    api.instances.error = error
    answer = await api.call("POST", "/api/instances", body=CREATE, documented=False)
    assert answer.status_code == status
    told = answer.json()["error"]
    assert (told["code"], told["category"], told["retryable"]) == (code, category, retryable)
    assert answer.headers.get("Retry-After") == (
        None if error.retry_after is None else str(error.retry_after)
    )


@pytest.mark.parametrize(
    ("method", "path", "scope", "status"),
    [
        ("GET", "/nowhere", Scope.READ, 404),
        ("GET", "/v2/api/instances", Scope.READ, 404),
        ("GET", "/nowhere", None, 404),
        ("GET", "/api/instances/", Scope.READ, 404),
        ("GET", "/api/instances/inst_1", Scope.READ, 404),
        ("PUT", "/api/instances", Scope.READ, 405),
        ("BREW", "/health", None, 405),
        ("GET", "/api/instances", None, 401),
        ("POST", "/api/instances", Scope.READ, 403),
        ("POST", "/api/instances", Scope.WRITE, 400),
        ("GET", "/defect", None, 500),
    ],
)
async def test_every_error_has_the_same_envelope(
    broken: Api, method: str, path: str, scope: Scope | None, status: int
) -> None:
    """The envelope has the reference's fields, our additions and the request IDs, nothing else."""
    answer = await broken.call(method, path, scope=scope, headers={"X-Correlation-ID": "corr/1"})
    assert answer.status_code == status
    TypeAdapter(ErrorResponse).validate_python(answer.json())
    error = answer.json()["error"]
    assert error["requestId"] == answer.headers["X-Request-ID"]
    assert error["correlationId"] == answer.headers["X-Correlation-ID"] == "corr/1"
    assert error["timestamp"] == "2025-10-09T08:53:20.000Z"


async def test_without_a_correlation_id_there_is_none(api: Api) -> None:
    """A missing correlation ID is absent, not null."""
    answer = await api.call("GET", "/nowhere")
    assert "correlationId" not in answer.json()["error"]
    assert "X-Correlation-ID" not in answer.headers


async def test_an_error_is_sent_as_a_problem_where_that_is_asked_for(api: Api) -> None:
    """If `Accept` names RFC 9457, the problem has the same fields."""
    answer = await api.call(
        "POST",
        "/api/instances",
        body={**CREATE, "gpuNum": 0},
        headers={"Accept": "application/problem+json"},
    )
    assert answer.headers["Content-Type"] == "application/problem+json"
    TypeAdapter(Problem).validate_python(answer.json())
    problem = answer.json()
    assert problem["status"] == answer.status_code == 400
    assert problem["title"] == "Bad Request"
    assert problem["code"] == "INVALID_GPU_NUM"
    assert problem["details"][0]["field"] == "gpuNum"
    assert problem["requestId"] == answer.headers["X-Request-ID"]


async def test_details_are_told_as_they_are(api: Api) -> None:
    """Details may be reasons per candidate, named facts, or fields without their values."""
    for details, told in (
        ([{"productId": "p", "reason": "SOLD_OUT"}], [{"productId": "p", "reason": "SOLD_OUT"}]),
        ({"ids": ["a", "b"]}, {"ids": ["a", "b"]}),
        ([FieldError("envs", "bad", has_value=False)], [{"field": "envs", "message": "bad"}]),
        (
            [FieldError("name", "bad", None)],
            [{"field": "name", "message": "bad", "value": None}],
        ),
    ):
        api.instances.error = Conflict("x", details=details)
        answer = await api.call("POST", "/api/instances", body=CREATE, documented=False)
        assert answer.json()["error"]["details"] == told


@pytest.mark.parametrize("accept", ["application/json", "application/problem+json"])
async def test_a_defect_says_nothing_and_is_logged_under_the_same_id(
    broken: Api, accept: str
) -> None:
    """The client gets only the request ID; the log has the cause under it."""
    with capture_logs() as lines:
        answer = await broken.call("GET", "/defect", headers={"Accept": accept})
    assert answer.status_code == 500
    assert SECRET not in answer.text
    assert "ZeroDivision" not in answer.text
    assert "Traceback" not in answer.text
    assert [line["event"] for line in lines] == ["unhandled_error", "request"]
    assert lines[0]["exc_info"]


async def test_errors_that_are_no_answers_are_not_shown(api: Api) -> None:
    """Errors other than `ApiError` do not reach a client."""
    api.instances.error = WrongSecretKey("NOVITAI_SECRET_KEY is not the key")
    answer = await api.call("POST", "/api/instances", body=CREATE)
    assert answer.status_code == 500
    assert "NOVITAI_SECRET_KEY" not in answer.text


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/api/instances", "GET, HEAD, POST"),
        ("/v1/api/instances/inst_1", "GET, HEAD, PATCH, DELETE"),
        ("/api/keys/key_1", "DELETE"),
        ("/health", "GET, HEAD"),
        ("/docs", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_told_all_the_right_ones(api: Api, path: str, allow: str) -> None:
    """`Allow` lists the methods of all routes of the path, not only of the first match."""
    answer = await api.call("PUT", path)
    assert answer.status_code == 405
    assert answer.headers["Allow"] == allow
    assert answer.json()["error"]["code"] == "METHOD_NOT_ALLOWED"


async def test_no_path_has_a_nul_in_it(api_process: ApiProcess) -> None:
    """NUL in a path is 404 on every route with a parameter."""
    document = (await api_process.call("GET", "/openapi.json")).json()
    asked = 0
    for path, item in document["paths"].items():
        names = re.findall(r"{\w+}", path)
        for name in names:
            wrong = re.sub(r"{\w+}", "x", path.replace(name, "a%00b"))
            for method in item:
                answer = await api_process.call(method.upper(), wrong, scope=Scope.ADMIN)
                told = (answer.status_code, answer.json()["error"]["code"])
                assert told == (404, "NOT_FOUND"), (method, wrong)
                asked += 1
    assert asked > 20

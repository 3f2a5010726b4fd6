# SPDX-License-Identifier: Apache-2.0
"""Tests of request bodies."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator

import orjson
import pytest
from starlette.responses import Response

from novitai.api.http.answers import answer
from novitai.api.http.body import MAX_BODY, JsonBody, parse, read_body
from novitai.api.routing.router import Route, RouteCall
from novitai.domain.api_key import Scope
from novitai.errors import ValidationFailed
from tests.api.application import CREATE, Api, ApiFactory


async def echo(call: RouteCall) -> Response:
    """Return the fields of the body."""
    body = await read_body(call.request, optional=True, seconds=call.seconds_left)
    return answer(orjson.dumps(dict(body.fields)))


OPTIONAL = Route(
    method="POST",
    path="/api/echo",
    id="testRoute",
    handler=echo,
    scope=Scope.WRITE,
    tag="Cache",
    summary="Echo",
    answers={200: None},
)


@pytest.fixture
async def echoing(factory: ApiFactory) -> Api:
    """Return an application with a route whose fields are all optional."""
    return await factory.make(extra=(OPTIONAL,))


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        b"",
        b"{'a': 1}",
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b'{"a": 1, "a": 2}',
        b'{"x": [{"a": 1, "a": 2}]}',
        b'{"a": "\xff"}',
        b'{"a": "\\ud800"}',
        b'{"a": "\n"}',
        b"\xef\xbb\xbf{}",
        b"[" * 5000 + b"]" * 5000,
        b'{"a": 1} x',
    ],
)
async def test_malformed_json_is_400(api: Api, raw: bytes) -> None:
    """Anything but strict JSON is `INVALID_JSON`, never a 500."""
    answer = await api.call(
        "POST", "/api/instances", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "INVALID_JSON"


@pytest.mark.parametrize("depth", range(850, 1100, 10))
async def test_no_depth_of_nesting_is_a_defect(api: Api, depth: int) -> None:
    """Nesting that is too deep for the parser is the client's error, never a 500."""
    for raw in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth):
        answer = await api.call(
            "POST", "/api/instances", content=raw, headers={"Content-Type": "application/json"}
        )
        assert answer.status_code == 400


@pytest.mark.parametrize("raw", [b"[]", b'"text"', b"1", b"null", b"true"])
async def test_json_that_is_no_object_is_refused(api: Api, raw: bytes) -> None:
    """JSON other than an object is a validation error."""
    answer = await api.call(
        "POST", "/api/instances", content=raw, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "VALIDATION_ERROR"


@pytest.mark.parametrize(
    "declared",
    ["text/plain", "application/x-www-form-urlencoded", "application/json;charset=latin-1", ""],
)
async def test_what_is_not_declared_as_json_is_415(api: Api, declared: str) -> None:
    """A body without a JSON `Content-Type` is 415."""
    answer = await api.call(
        "POST",
        "/api/instances",
        content=b'{"name": "x"}',
        headers={"Content-Type": declared} if declared else {},
    )
    assert answer.status_code == 415
    assert answer.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "x"])
async def test_a_body_that_is_compressed_is_415(echoing: Api, coding: str) -> None:
    """Any content coding except `identity` is 415."""
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    for raw in (gzip.compress(b'{"a": 1}'), b'{"a": 1}'):
        answer = await echoing.call("POST", "/api/echo", content=raw, headers=headers)
        assert answer.status_code == 415
        assert answer.json()["error"]["code"] == "UNSUPPORTED_MEDIA_TYPE"
        assert answer.headers["Accept-Encoding"] == "identity"
    absent = await echoing.call("POST", "/api/echo", headers=headers)
    plain = {**headers, "Content-Encoding": "Identity"}
    read = await echoing.call("POST", "/api/echo", content=b'{"a": 1}', headers=plain)
    assert (absent.status_code, read.status_code) == (200, 200)


@pytest.mark.parametrize(
    "declared",
    ["application/json", "Application/JSON; charset=UTF-8", "application/merge-patch+json"],
)
async def test_json_in_its_variants_is_read(api: Api, declared: str) -> None:
    """Letter case, a UTF-8 charset parameter and `+json` types are accepted."""
    answer = await api.call(
        "POST", "/api/instances", body=CREATE, headers={"Content-Type": declared}
    )
    assert answer.status_code == 201


@pytest.mark.parametrize("declared", ["", "text/plain", "application/json"])
async def test_an_empty_body_is_an_empty_object_where_all_is_optional(
    echoing: Api, declared: str
) -> None:
    """With any Content-Type, an empty body means `{}`."""
    headers = {"Content-Type": declared} if declared else {}
    answer = await echoing.call("POST", "/api/echo", content=b"", headers=headers)
    assert (answer.status_code, answer.json()) == (200, {})


async def test_an_optional_body_that_is_there_must_be_json(echoing: Api) -> None:
    """An optional body that is sent must still be valid JSON."""
    answer = await echoing.call("POST", "/api/echo", content=b"x=1")
    assert answer.status_code == 415


async def test_the_largest_body_is_read_and_one_byte_more_is_not(echoing: Api) -> None:
    """The limit is 1 MiB, whether the length is declared or not."""
    for size, status in ((MAX_BODY, 200), (MAX_BODY + 1, 413)):
        raw = b'{"a":"' + b"x" * (size - 8) + b'"}'
        headers = {"Content-Type": "application/json", **echoing.bearer()}

        async def stream(raw: bytes = raw) -> AsyncIterator[bytes]:
            for start in range(0, len(raw), 100_000):
                yield raw[start : start + 100_000]

        declared = await echoing.client.post("/api/echo", content=raw, headers=headers)
        streamed = await echoing.client.post("/api/echo", content=stream(), headers=headers)
        assert (declared.status_code, streamed.status_code) == (status, status)
        if status == 413:
            for answer in (declared, streamed):
                assert answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"


def test_the_same_object_has_the_same_digest() -> None:
    """The digest ignores white space and key order, and differs for another value."""
    first = parse(b'{"a": 1, "b": [1, 2]}')
    second = parse(b'{"b":[1,2],"a":1}')
    other = parse(b'{"b":[2,1],"a":1}')
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    assert isinstance(other, dict)
    assert JsonBody(first).digest == JsonBody(second).digest != JsonBody(other).digest


def test_the_reason_is_told_without_the_text() -> None:
    """A parse error does not quote the body."""
    with pytest.raises(ValidationFailed) as caught:
        parse(b'{"envs": {"PASS": "hunter2}}')
    assert "hunter2" not in caught.value.message

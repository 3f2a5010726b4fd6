# SPDX-License-Identifier: Apache-2.0
"""Which requests are sent again, when, and with which key and body."""

from __future__ import annotations

import pickle
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx2
import pytest

from novitai_client import ApiError, ConnectionFailed, UnexpectedResponse
from novitai_client.errors import (
    CLASSES,
    Conflict,
    IdempotencyInProgress,
    NotFound,
    RateLimited,
    ServerError,
    class_of,
)
from novitai_client.sending import retry_after
from tests.client.scripted import CREATE, CREATED, Script, instance, refusal
from tests.docs.pages import code, page, rows, section

LOST = httpx2.ReadError("connection reset")
OK = httpx2.Response(201, json=CREATED)


def test_a_create_keeps_its_key_and_body_through_all_attempts() -> None:
    """The key is made once per call: each attempt has the same one, and the next call another."""
    script = Script([LOST, httpx2.ConnectError("refused"), refusal(503, "SHUTTING_DOWN"), OK])
    with script.client() as client:
        client.instances.create(**CREATE)
        first = script.keys()
        client.instances.create(**CREATE)
    assert len(first) == 4
    assert len(set(first)) == 1
    assert len({request.content for request in script.requests}) == 1
    assert script.keys()[-1] not in {None, first[0]}


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_status_that_passes_is_retried(status: int) -> None:
    """Each of these statuses is retried, also without an error of the API in it."""
    for answer in (refusal(status, "SOME_CODE"), httpx2.Response(status, text="<html>")):
        script = Script([answer, httpx2.Response(200, json=instance("running"))])
        with script.client() as client:
            assert client.instances.get("inst_1").status == "running"
        assert len(script.requests) == 2


@pytest.mark.parametrize("code", ["IDEMPOTENCY_IN_PROGRESS", "COMMIT_UNKNOWN"])
def test_a_create_that_may_be_stored_is_settled_by_its_key(code: str) -> None:
    """After a lost response the first request may still run, or its commit may be in doubt."""
    status = 500 if code == "COMMIT_UNKNOWN" else 409
    script = Script([LOST, refusal(status, code, after=1), OK])
    with script.client() as client:
        assert client.instances.create(**CREATE).instance_id == "inst_1"
    assert len(set(script.keys())) == 1


@pytest.mark.parametrize("answer", [refusal(409, "NO_CAPACITY"), refusal(500, "STORE_CORRUPT")])
def test_a_refusal_is_not_retried(answer: httpx2.Response) -> None:
    """Other errors are raised at once."""
    script = Script([answer, OK])
    with script.client() as client, pytest.raises(ApiError):
        client.instances.create(**CREATE)
    assert len(script.requests) == 1


def test_a_change_without_a_key_is_sent_once() -> None:
    """A PATCH and a PUT have no idempotency key, so that a lost response is raised."""
    script = Script([LOST])
    with script.client() as client:
        with pytest.raises(ConnectionFailed, match="may have been made"):
            client.instances.update("inst_1", tags={})
        with pytest.raises(ConnectionFailed, match="may have been made"):
            client.instances.set_last_used("inst_1")
    assert script.keys() == [None, None]


def test_retry_after_is_honoured() -> None:
    """The pause is the server's, not our own."""
    script = Script([refusal(429, "RATE_LIMIT_EXCEEDED", after=17), OK])
    with script.client() as client:
        client.instances.create(**CREATE)
    assert script.paused == [17.0]


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    """If the server asks for more time than there is, its error is raised at once."""
    script = Script([refusal(429, "RATE_LIMIT_EXCEEDED", after=61)])
    with script.client(timeout=60) as client, pytest.raises(RateLimited) as caught:
        client.instances.create(**CREATE)
    assert script.paused == []
    assert caught.value.retry_after == 61
    assert caught.value.idempotency_key == script.keys()[0]


def test_retries_end_at_the_deadline() -> None:
    """A server that never answers fails the call within its timeout; pauses grow to a limit."""
    script = Script([httpx2.ConnectError("refused")])
    with script.client(timeout=60) as client, pytest.raises(ConnectionFailed) as caught:
        client.instances.create(**CREATE)
    assert 40 < script.now < 60
    assert script.paused[:5] == [0.5, 1, 2, 4, 8]
    assert max(script.paused) == 8
    assert caught.value.idempotency_key == script.keys()[0]
    assert "nvt_" not in str(caught.value) + repr(client)


def test_a_certificate_that_is_not_valid_is_told_at_once() -> None:
    """Time does not cure it."""
    error = httpx2.ConnectError("certificate verify failed")
    error.__cause__ = ssl.SSLCertVerificationError("certificate verify failed")
    script = Script([error])
    with script.client() as client, pytest.raises(ConnectionFailed, match="certificate"):
        client.instances.get("inst_1")
    assert len(script.requests) == 1


class Endless(httpx2.SyncByteStream):
    """A body of spaces, one a second."""

    def __init__(self, script: Script) -> None:
        self._script = script

    def __iter__(self) -> Iterator[bytes]:
        while True:
            self._script.now += 1
            yield b" "


def test_a_body_that_never_ends_is_given_up() -> None:
    """The deadline of an attempt holds for the whole body, not for each part."""
    script = Script([])
    script.steps = [lambda _: httpx2.Response(200, stream=Endless(script))]
    with script.client(timeout=30) as client, pytest.raises(ConnectionFailed, match="not read"):
        client.instances.get("inst_1")
    assert script.now < 40


@pytest.mark.parametrize(
    "answer",
    [
        httpx2.Response(200, text="<html>"),
        httpx2.Response(200, json={"id": 5}),
        httpx2.Response(302, headers={"Location": "http://elsewhere.test"}),
        httpx2.Response(418, json={"error": "teapot"}),
    ],
)
def test_a_response_of_something_else_is_told(answer: httpx2.Response) -> None:
    """A page of a proxy, another form and a redirect are one exception; none is followed."""
    script = Script([answer])
    with script.client() as client, pytest.raises(UnexpectedResponse) as caught:
        client.instances.get("inst_1")
    assert caught.value.status == answer.status_code
    assert [request.url.host for request in script.requests] == ["novitai.test"]


def test_retry_after_may_be_a_date() -> None:
    """Proxies send a date (RFC 9110); other texts are ignored."""
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (retry_after(soon) or 0) <= 30
    assert (retry_after("5"), retry_after("soon"), retry_after(None)) == (5, None, None)


def test_every_code_of_the_reference_has_a_class() -> None:
    """The tree has each documented code, and no other, below the class of its status."""
    documented = {
        code(row[0]): int(row[1])
        for row in rows(section(page("reference/errors.md"), "Errors of requests"))
    }
    assert set(CLASSES) == set(documented)
    for name, status in documented.items():
        assert issubclass(class_of(name, status), class_of("UNKNOWN", status)), name


def test_an_error_has_the_facts_of_the_response() -> None:
    """Code, details and request ID are attributes, and the exception survives pickling."""
    script = Script([refusal(404, "INSTANCE_NOT_FOUND", details=[{"field": "x"}])])
    with script.client() as client, pytest.raises(NotFound) as caught:
        client.instances.get("inst_1")
    error = pickle.loads(pickle.dumps(caught.value))  # noqa: S301 - made in this line
    assert (error.status, error.code) == (404, "INSTANCE_NOT_FOUND")
    assert (error.details, error.request_id) == ([{"field": "x"}], "req_1")
    assert class_of("BRAND_NEW", 409) is Conflict
    assert class_of("BRAND_NEW", 507) is ServerError
    assert issubclass(IdempotencyInProgress, Conflict)


@pytest.mark.parametrize("instance_id", ["", ".", ".."])
def test_an_id_never_leads_to_another_route(instance_id: str) -> None:
    """An empty ID would delete nothing in particular; other characters are escaped."""
    script = Script([httpx2.Response(202, json={**CREATED, "operationId": "op_1"})])
    with script.client() as client:
        with pytest.raises(ValueError, match="ID"):
            client.instances.delete(instance_id)
        client.instances.delete("../keys/a?b")
    assert script.requests[0].url.raw_path == b"/api/instances/..%2Fkeys%2Fa%3Fb"


def test_all_pages_are_read_as_they_are_needed() -> None:
    """A list goes from page to page by the cursor, and a page that repeats itself ends it."""
    first = {"instances": [instance("running")], "total": 2, "nextCursor": "1.a"}
    last = {"instances": [instance("stopped")], "total": 2}
    script = Script([httpx2.Response(200, json=one) for one in (first, last)])
    with script.client() as client:
        listed = client.instances.list(limit=1)
        assert next(listed).status == "running"
        assert len(script.requests) == 1
        assert [one.status for one in listed] == ["stopped"]
    assert dict(script.requests[1].url.params) == {"limit": "1", "cursor": "1.a"}
    script = Script([httpx2.Response(200, json=first)])
    with script.client() as client, pytest.raises(UnexpectedResponse):
        list(client.instances.list())


def test_a_time_without_a_zone_is_not_sent() -> None:
    """The server could not know what it means."""
    script = Script([OK])
    with script.client() as client, pytest.raises(ValueError, match="time zone"):
        client.instances.set_last_used("inst_1", datetime.fromisoformat("2026-01-02"))
    assert script.requests == []

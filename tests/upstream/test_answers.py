# SPDX-License-Identifier: Apache-2.0
"""Which error a response stands for."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.upstream.answers import failure, payload, retry_after
from novitai.upstream.errors import (
    Gone,
    InsufficientResource,
    InvalidResponse,
    InvalidStateChange,
    KeyRefused,
    RateLimited,
    Refused,
    ServerError,
    Timeout,
    UpstreamError,
)
from novitai.upstream.operations import Endpoint
from novitai.upstream.transport import Answer

NOW = 1_760_000_000_000


def answer(status: int, reason: str = "", message: str = "m") -> Answer:
    """Make a response with an error body."""
    body = {"code": status, "reason": reason, "message": message, "metadata": {}}
    return Answer(status, {}, orjson.dumps(body))


def judge(operation: Endpoint, given_answer: Answer) -> UpstreamError | None:
    """Return the error of a response."""
    return failure(operation, given_answer, now=NOW)


@pytest.mark.parametrize(
    ("operation", "status", "reason", "message", "kind"),
    [
        (Endpoint.INSTANCE, 400, "RESOURCE_NOT_FOUND", "", Gone),
        (Endpoint.INSTANCE, 404, "", "", Gone),
        (Endpoint.DELETE, 400, "RESOURCE_NOT_FOUND", "", Gone),
        (Endpoint.DELETE, 404, "NOT_FOUND", "", Gone),
        (Endpoint.TEMPLATE, 400, "TEMPLATE_NOT_FOUND", "", Gone),
        (Endpoint.TEMPLATE, 400, "", "template not found", Gone),
        (Endpoint.START, 400, "IMAGE_NOT_FOUND", "image not found", Refused),
        (Endpoint.CREATE, 400, "RESOURCE_NOT_FOUND", "", Refused),
        (Endpoint.CREATE, 404, "", "", Refused),
        (Endpoint.LIST_INSTANCES, 404, "", "", Refused),
        (Endpoint.CREATE, 400, "INSUFFICIENT_RESOURCE", "", InsufficientResource),
        (Endpoint.START, 400, "MIGRATE_INSUFFICIENT_RESOURCE", "", InsufficientResource),
        (Endpoint.STOP, 400, "OPERATION_LIMIT", "Invalid state change.", InvalidStateChange),
        (Endpoint.CREATE, 400, "BALANCE_NOT_ENOUGH", "", Refused),
        (Endpoint.CREATE, 422, "", "", Refused),
        (Endpoint.CLUSTERS, 401, "UNAUTHORIZED", "", KeyRefused),
        (Endpoint.CREATE, 403, "FORBIDDEN", "", KeyRefused),
        (Endpoint.CREATE, 408, "", "", Timeout),
        (Endpoint.CREATE, 429, "RATE_LIMIT_EXCEEDED", "", RateLimited),
        (Endpoint.CREATE, 500, "UNKNOWN", "", ServerError),
        (Endpoint.CREATE, 503, "", "", ServerError),
        (Endpoint.CREATE, 301, "", "", InvalidResponse),
    ],
)
def test_each_answer_has_its_error(
    operation: Endpoint, status: int, reason: str, message: str, kind: type[UpstreamError]
) -> None:
    """Each response has its error, which keeps upstream's reason and status."""
    error = judge(operation, answer(status, reason, message))
    assert type(error) is kind
    assert error.http_status == status
    assert status < 400 or error.reason == reason


def test_a_success_is_no_error() -> None:
    """Any 2xx is a success."""
    assert judge(Endpoint.STOP, Answer(204, {}, b"")) is None


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>bad gateway</html>", "Novita answered 502"),
        (b"", "Novita answered 502"),
        (b'{"error": {"message": "upstream down", "code": 3}}', "upstream down"),
        (b'{"error": "no"}', "no"),
        (b'{"title": "Bad"}', "Bad"),
        (b'["x"]', "Novita answered 502"),
        (b'{"message": "two\\nlines\\u0007"}', "two lines"),
    ],
)
def test_a_gateways_own_errors_are_read_too(body: bytes, message: str) -> None:
    """Errors of a gateway have no reason and need not be JSON."""
    error = judge(Endpoint.CLUSTERS, Answer(502, {}, body))
    assert error is not None
    assert (error.message, error.reason) == (message, "")


def test_what_was_sent_in_confidence_is_not_shown_back() -> None:
    """If upstream repeats a secret in its message, the secret is masked."""
    error = failure(
        Endpoint.CREATE,
        answer(400, "VALIDATOR_PARAM", "bad env hunter22, bad auth bob:hunter22-2"),
        now=NOW,
        secrets=("hunter22", "bob:hunter22-2", "a"),
    )
    assert str(error) == "bad env ***, bad auth *** (400 VALIDATOR_PARAM)"
    assert "hunter" not in repr(error)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"message": "half \\ud83d an emoji"}', "half \ufffd an emoji"),
        (b'{"message": "caf\xe9\nis closed"}', "caf\ufffd is closed"),
        (b'{"message": "\\u001b[31mred\\u202e"}', "[31mred"),
        (b'{"message": "pull of https://bob:pw@hub.test/"}', "pull of https://***@hub.test/"),
        (b'{"message": "get https://j.test/?token=t0k"}', "get https://j.test/?token=***"),
        (b'{"message": "' + b"x" * 1_000_000 + b'"}', "x" * 500),
    ],
)
def test_a_refusals_message_is_one_short_line_without_secrets(body: bytes, message: str) -> None:
    """A refusal's message is shown, logged and stored, so it is one short line."""
    error = judge(Endpoint.CREATE, Answer(400, {}, body))
    assert error is not None
    assert error.message == message


def test_a_secret_is_hidden_before_a_message_is_cut() -> None:
    """No part of a secret remains at the end of a cut message."""
    given_answer = answer(400, "VALIDATOR_PARAM", "x" * 495 + "hunter22")
    error = failure(Endpoint.CREATE, given_answer, now=NOW, secrets=("hunter22",))
    assert error is not None
    assert error.message == "x" * 495 + "***"


def test_a_word_that_is_no_reason_is_not_taken_for_one() -> None:
    """Only upper snake case counts as a reason, because reasons are shown and compared."""
    for word in ("<script>", "A" * 65, "A\n"):
        error = judge(Endpoint.CREATE, answer(400, word, "m"))
        assert error is not None
        assert error.reason == ""


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Thu, 09 Oct 2025 08:53:40 GMT", 20.0),
        ("Thu, 09 Oct 2025 08:53:00 GMT", 0.0),
        ("soon", None),
        ("inf", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    """`Retry-After` is read as in RFC 9110; anything else counts as absent."""
    assert retry_after({"retry-after": header}, now=NOW) == seconds


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff", b"[" * 5000])
def test_what_is_no_object_is_nonsense(body: bytes) -> None:
    """A success without an object is an error that does not contain the document."""
    with pytest.raises(InvalidResponse) as caught:
        payload(Answer(200, {}, body))
    assert caught.value.__context__ is None


@given(st.sampled_from(Endpoint), st.integers(200, 599), st.binary(max_size=60), st.text())
def test_no_answer_is_too_odd_to_be_judged(
    operation: Endpoint, status: int, body: bytes, header: str
) -> None:
    """Every response is a success or an `UpstreamError`."""
    error = failure(operation, Answer(status, {"retry-after": header}, body), now=NOW)
    assert (error is None) == (status < 300)

# SPDX-License-Identifier: Apache-2.0
"""A server that speaks nonsense gets a message and an exit code, never a traceback."""

from __future__ import annotations

import gzip
import json

import pytest

from tests.cli.client.answering import answering, http
from tests.cli.client.program import Program

HTML = b"<html>proxy error</html>"


ERROR = {"code": "NOT_FOUND", "message": "\x1b[31mred\nsecond line\u202e", "requestId": "r"}


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", 75, "no response from http://"),
        (b"", 75, "no response from http://"),
        (http(HTML), 1, "is not one of novitai"),
        (http(HTML, status="404 Not Found"), 1, "is not one of novitai"),
        (http(HTML, status="502 Bad Gateway"), 75, "is not one of novitai"),
        (
            http(HTML, status="302 Found", more="Location: http://x/\r\n"),
            1,
            "is not one of novitai",
        ),
        (http(b"[" * 100_000), 1, "its body is not JSON"),
        (http(b"\xff\xfe{}"), 1, "its body is not JSON"),
        (http(b"{}"), 1, "it has no list of instances"),
        (http(b'{"instances": [{"id": 7}]}'), 1, "is not one of novitai"),
        (http(HTML, more="Content-Encoding: gzip\r\n"), 1, "cannot be decoded"),
        (http(gzip.compress(b"{}", mtime=0)[:-9], more="Content-Encoding: gzip\r\n"), 1, ""),
        (http(json.dumps({"error": ERROR}).encode(), status="404 Not Found"), 3, "(NOT_FOUND)"),
        (http(json.dumps({"error": [7]}).encode(), status="409 Conflict"), 1, "has no error"),
    ],
    ids=[
        "another protocol", "nothing", "html", "html 404", "html 502", "redirect", "deep json",
        "not utf-8", "no list", "another type", "not gzip", "half gzip", "hostile error",
        "another error",
    ],
)  # fmt: skip
def test_nonsense_is_an_error_in_words(
    program: Program, answer: bytes, code: int, told: str
) -> None:
    """No response, no HTTP, HTML, deep or broken JSON, bad compression, errors of other forms."""
    with answering(answer) as url:
        # The command asks again until the time is over if there is no response.
        within = "60" if code != 75 else "0.3" if told.startswith("no response") else "3"
        ran = program.run("ls", "--within", within, env={"NOVITAI_URL": url})
    assert ran.code == code
    assert told in ran.err
    assert ran.out == ""
    assert ran.err.startswith("novitai: ")
    assert not set(ran.err) & {"\x1b", "\u202e"}


def test_a_proxy_of_the_environment_is_used(program: Program) -> None:
    """HTTP_PROXY leads through the proxy, as with any other client."""
    with answering(http(HTML, status="407 Proxy Authentication Required")) as proxy:
        ran = program.run("ls", env={"NOVITAI_URL": "http://novitai.test", "HTTP_PROXY": proxy})
    assert (ran.code, "(407)" in ran.err) == (1, True)


def test_the_doctor_knows_a_stranger(program: Program) -> None:
    """Another server at the address is named as the cause."""
    with answering(http(HTML)) as url:
        ran = program.run("doctor", env={"NOVITAI_URL": url})
    assert ran.code == 1
    assert "something answers there, and it is not novitai" in ran.out

# SPDX-License-Identifier: Apache-2.0
"""Requests on their way out: shown as a curl line and not sent, or told if they are repeated."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from novitai.cli.output import note

if TYPE_CHECKING:
    import httpx2

_KEY: Final = '"Authorization: Bearer $NOVITAI_API_KEY"'
_SHOWN: Final = ("Accept", "Content-Type", "Idempotency-Key", "If-Match", "Last-Event-ID")
_TELL_AFTER: Final = 1
"""The number of attempts without a response after which the user is told."""
_BUSY: Final = frozenset({408, 429, 502, 503, 504})


class CurlShown(Exception):
    """The request of a command, as a curl line. It was not sent.

    Attributes:
        line: The line; the key is `$NOVITAI_API_KEY`.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.line = line


def refuse(request: httpx2.Request) -> None:
    """Show a request in place of sending it.

    Raises:
        CurlShown: always.
    """
    raise CurlShown(curl_line(request))


def curl_line(request: httpx2.Request) -> str:
    """Return a request as one line for a shell, with the variable in place of the key."""
    parts = ["curl -sS"]
    if request.method != "GET":
        parts.append(f"-X {request.method}")
    parts.append(f"-H {_KEY}")
    for name in _SHOWN:
        value = request.headers.get(name)
        if value is not None and (name, value) != ("Accept", "application/json"):
            parts.append(f"-H {shlex.quote(f'{name}: {value}')}")
    content = request.read()
    if content and "Content-Type" not in request.headers:
        parts.append("-H 'Content-Type: application/json'")
    if content:
        parts.append(f"-d {shlex.quote(content.decode(errors='replace'))}")
    parts.append(shlex.quote(str(request.url)))
    return " ".join(parts)


class RetryNotes:
    """Tells, once, that a request is sent again, so that the terminal is not silent."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._unanswered = 0
        self._told = False

    def sent(self, _request: httpx2.Request) -> None:
        """Note that a request is sent."""
        if self._unanswered >= _TELL_AFTER and not self._told:
            self._told = True
            note(f"novitai: the server does not answer; trying again for up to {self._seconds:g} s")
        self._unanswered += 1

    def answered(self, response: httpx2.Response) -> None:
        """Note that a response came; a server that is busy counts as none."""
        if response.status_code not in _BUSY:
            self._unanswered = 0

# SPDX-License-Identifier: Apache-2.0
"""A browser that is logged in: it sends its cookie, and the headers that browsers add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx2

from tests.api.client import Http

HOST = "localhost:8080"
OWN = {"Sec-Fetch-Site": "same-origin"}


@dataclass
class Browser:
    """A browser at a page of the server. `cookie` is empty until it logs in."""

    http: Http
    host: str = HOST
    headers: Mapping[str, str] = field(default_factory=lambda: OWN)
    cookie: str = ""

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> httpx2.Response:
        """Send one request; `headers` replaces those that a browser adds."""
        sent = {"Host": self.host, **(self.headers if headers is None else headers)}
        if self.cookie:
            sent.setdefault("Cookie", self.cookie)
        answer = await self.http.call(method, path, scope=None, body=body, headers=sent)
        self.http.client.cookies.clear()  # this class keeps the cookie itself
        return answer

    async def log_in(self, **body: str) -> httpx2.Response:
        """Log in with a key or a code, and keep the cookie."""
        answer = await self.send("POST", "/api/session", body=body)
        if answer.status_code == 204:
            self.cookie = answer.headers["Set-Cookie"].partition(";")[0]
        return answer

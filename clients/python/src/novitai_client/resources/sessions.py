# SPDX-License-Identifier: Apache-2.0
"""Sessions of browsers. A program needs `create_code` at most, to open the dashboard for a user."""

from __future__ import annotations

from typing import Final

from novitai_client.models.sessions import LoginCode, Session
from novitai_client.surface import Method, Mode, Resource
from novitai_client.wire import body

_PATH: Final = "/api/session"


class Sessions(Resource[Mode]):
    """Sessions of browsers."""

    @Method
    async def create(self, *, key: str | None = None, code: str | None = None) -> str:
        """Begin a session with an API key or a one-time code, and return its `Set-Cookie`.

        This client goes on with its own key. The cookie is for a browser that the program steers.

        Example:
            cookie = client.sessions.create(key="nvt_...")
        """
        content = body({"key": key, "code": code})
        answer = await self._api.send("POST", _PATH, content=content, takes_key=False)
        return str(answer.headers.get("Set-Cookie", ""))

    @Method
    async def create_code(self, *, idempotency_key: str | None = None) -> LoginCode:
        """Make a one-time code, with which a browser logs in as the key of this client.

        It can be used once, within 60 seconds. Keep it secret until then, as the key.

        Example:
            import webbrowser

            webbrowser.open(client.sessions.create_code().url)
        """
        place = f"{_PATH}/codes"
        return await self._api.fetch(LoginCode, "POST", place, key=idempotency_key)

    @Method
    async def current(self) -> Session:
        """Read the session of the request: one with a cookie, which this client does not send.

        Example:
            print(client.sessions.current().expires_at)
        """
        return await self._api.fetch(Session, "GET", _PATH)

    @Method
    async def delete(self) -> None:
        """End the session of the request: one with a cookie, which this client does not send.

        Example:
            client.sessions.delete()
        """
        await self._api.send("DELETE", _PATH, takes_key=False)

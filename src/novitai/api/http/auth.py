# SPDX-License-Identifier: Apache-2.0
"""Authenticate callers by API key or session, and check their scope and rate limit."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from novitai.api.http.browsers import Browsers
from novitai.api.http.context import RequestContext, header_values
from novitai.api.http.limits import RateLimiter
from novitai.api.http.proxies import neighbourhood
from novitai.domain.api_key import Scope, allows
from novitai.errors import Forbidden, TooManyRequests, Unauthorized
from novitai.lifecycle.api_keys import Caller, KeyRing
from novitai.lifecycle.sessions import Sessions

NO_KEY: Final = "A valid API key is required: Authorization: Bearer <key>"
_PRIVATE: Final = (b"cache-control", b"private, no-cache")
"""Shared caches keep no response to `Authorization`, but they may keep one to a cookie."""
_IS_BEARER: Final = re.compile(rb"\s*bearer\b", re.IGNORECASE)
_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]+)")


class _Limited:
    """A rate limiter, and how its headers begin."""

    def __init__(self, calls: RateLimiter, name: bytes) -> None:
        quota = calls.quota
        window = round(quota.capacity * quota.interval)
        self.calls = calls
        self.policy = (b"ratelimit-policy", b'"%b";q=%d;w=%d' % (name, quota.capacity, window))
        self.left = b'"%b";' % name + b"r=%d;t=%d"


class KeyGuard:
    """Guards every route that needs an API key or a session.

    Args:
        keys: Authenticates API keys.
        sessions: Authenticates sessions.
        browsers: Judges requests with a session.
        calls: Limits the calls with each key.
        session_calls: Limits the calls with all sessions of a key.
        failures: Limits the failed authentications from each address.
    """

    def __init__(
        self,
        keys: KeyRing,
        sessions: Sessions,
        browsers: Browsers,
        *,
        calls: RateLimiter,
        session_calls: RateLimiter,
        failures: RateLimiter,
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._browsers = browsers
        self._of_keys = _Limited(calls, b"key")
        self._of_sessions = _Limited(session_calls, b"session")
        self._failures = failures

    async def admit(self, request: Request, context: RequestContext, needed: Scope) -> Caller:
        """Admit a caller with a valid key, the needed scope and a token in its bucket.

        Without a bearer token, a session is as good as its key.

        Raises:
            Unauthorized: the key is missing or not valid.
            TooManyRequests: too many calls with this key, or too many failures from this address.
            Forbidden: the key lacks the scope.
            HostNotAllowed: a browser reached the server under a name that is not its own.
            CrossSiteRequest: a page of another origin may have sent a change with a session.
        """
        caller = await self._authenticate(request, context)
        if caller is None:
            raise await self.refused(context, NO_KEY)
        context.key_id = caller.key_id
        limited = self._of_keys if caller.session is None else self._of_sessions
        taken = await limited.calls.take(caller.key_id)
        # draft-ietf-httpapi-ratelimit-headers-10 (not an RFC yet)
        left = limited.left % (taken.remaining, taken.reset)
        context.headers += (limited.policy, (b"ratelimit", left))
        if not taken.allowed:
            raise TooManyRequests("Rate limit exceeded", retry_after=taken.retry_after)
        if not allows(caller.scopes, needed):
            raise Forbidden(
                f"This API key lacks the scope '{needed.value}'",
                details={"missingScope": needed.value},
            )
        return caller

    async def check_again(self, caller: Caller) -> None:
        """Check that neither the key nor the session of an admitted caller has ended since.

        For requests that take long: one whose body arrives slowly must not change anything, and one
        that waits must not show anything, after the key was revoked.

        Raises:
            Unauthorized: it has ended.
        """
        if caller.credential not in await self._sessions.usable({caller.credential}):
            raise Unauthorized(NO_KEY, headers={"WWW-Authenticate": "Bearer"})

    async def count(self, caller: Caller) -> None:
        """Count the log-in of a caller as a call with its key.

        Raises:
            TooManyRequests: too many calls with this key.
        """
        taken = await self._of_keys.calls.take(caller.key_id)
        if not taken.allowed:
            raise TooManyRequests("Rate limit exceeded", retry_after=taken.retry_after)

    async def refused(
        self, context: RequestContext, message: str
    ) -> Unauthorized | TooManyRequests:
        """Count a failed authentication, and return the error to raise."""
        # Checked only after a failure, so a valid key is not refused for its address's failures.
        taken = await self._failures.take(neighbourhood(context.client))
        if not taken.allowed:
            return TooManyRequests(
                "Too many failed authentications from this address", retry_after=taken.retry_after
            )
        # The same message for every reason, so that an attacker learns nothing.
        return Unauthorized(message, headers={"WWW-Authenticate": "Bearer"})

    async def _authenticate(self, request: Request, context: RequestContext) -> Caller | None:
        scope = request.scope
        given = header_values(scope, b"authorization")
        match = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
        if match is not None:
            return await self._keys.authenticate(match[1].decode())
        secret = self._browsers.session(scope, context)
        # Another scheme is for a proxy, and says nothing about the caller.
        if secret is None or any(_IS_BEARER.match(one) for one in given):
            return None
        self._browsers.check_host(scope)
        if scope["method"] != "GET":  # HEAD is handled as GET
            self._browsers.check_own(scope, context)
        context.headers.append(_PRIVATE)
        return await self._sessions.authenticate(secret)

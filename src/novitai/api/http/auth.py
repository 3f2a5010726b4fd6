# SPDX-License-Identifier: Apache-2.0
"""Authenticate callers, and check their scope and rate limit."""

from __future__ import annotations

import re
from typing import Final

from starlette.requests import Request

from novitai.api.http.context import RequestContext
from novitai.api.http.limits import RateLimiter, Taken
from novitai.api.http.proxies import neighbourhood
from novitai.domain.api_key import Scope, allows
from novitai.errors import Forbidden, TooManyRequests, Unauthorized
from novitai.lifecycle.api_keys import Caller, KeyRing

_BEARER: Final = re.compile(r"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]+)")


class KeyGuard:
    """Guards every route that needs an API key.

    Args:
        keys: Authenticates API keys.
        calls: Limits the calls with each key.
        failures: Limits the failed authentications from each address.
    """

    def __init__(self, keys: KeyRing, calls: RateLimiter, failures: RateLimiter) -> None:
        self._keys = keys
        self._calls = calls
        self._failures = failures
        quota = calls.quota
        window = round(quota.capacity * quota.interval)
        self._policy = f'"key";q={quota.capacity};w={window}'

    async def admit(self, request: Request, context: RequestContext, needed: Scope) -> Caller:
        """Admit a caller with a valid key, the needed scope and a token in its bucket.

        Raises:
            Unauthorized: the key is missing or not valid.
            TooManyRequests: too many calls with this key, or too many failures from this address.
            Forbidden: the key lacks the scope.
        """
        caller = await self._authenticate(request)
        if caller is None:
            raise await self._refused(context)
        context.key_id = caller.key_id
        taken = await self._calls.take(caller.key_id)
        context.headers += self._headers(taken)
        if not taken.allowed:
            raise TooManyRequests("Rate limit exceeded", retry_after=taken.retry_after)
        if not allows(caller.scopes, needed):
            raise Forbidden(
                f"This API key lacks the scope '{needed.value}'",
                details={"missingScope": needed.value},
            )
        return caller

    async def _authenticate(self, request: Request) -> Caller | None:
        given = request.headers.getlist("authorization")
        match = _BEARER.fullmatch(given[0].strip()) if len(given) == 1 else None
        return None if match is None else await self._keys.authenticate(match[1])

    async def _refused(self, context: RequestContext) -> Unauthorized | TooManyRequests:
        # Checked only after a failure, so a valid key is not refused for its address's failures.
        taken = await self._failures.take(neighbourhood(context.client))
        if not taken.allowed:
            return TooManyRequests(
                "Too many failed authentications from this address", retry_after=taken.retry_after
            )
        # The same message for every reason, so that an attacker learns nothing.
        return Unauthorized(
            "A valid API key is required: Authorization: Bearer <key>",
            headers={"WWW-Authenticate": "Bearer"},
        )

    def _headers(self, taken: Taken) -> list[tuple[str, str]]:
        """Build the headers of draft-ietf-httpapi-ratelimit-headers-10 (not an RFC yet)."""
        return [
            ("RateLimit-Policy", self._policy),
            ("RateLimit", f'"key";r={taken.remaining};t={taken.reset}'),
        ]

# SPDX-License-Identifier: Apache-2.0
"""`/api/session`: log a browser in and out, and make one-time codes for it."""

from __future__ import annotations

from starlette.responses import Response

from novitai.api.http.answers import ReadyResponse, answer, reply
from novitai.api.http.auth import KeyGuard
from novitai.api.http.browsers import Browsers
from novitai.api.routing.common_errors import CROSS_SITE, HOST_NOT_ALLOWED
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.sessions import (
    CreateSessionRequest,
    LoginCodeResponse,
    SessionResponse,
)
from novitai.api.schemas.wire import NoFields
from novitai.domain.api_key import Scope, in_order
from novitai.domain.session import Session, login_url
from novitai.errors import (
    Conflict,
    FieldError,
    Forbidden,
    NotFound,
    TooManyRequests,
    Unauthorized,
    ValidationFailed,
)
from novitai.lifecycle.api_keys import KeyRing
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.sessions import NewCode, NewSession, Sessions

_NO_STORE = (b"cache-control", b"no-store")
_BAD_KEY = "The API key is not valid"
_BAD_CODE = "The code is not valid: it can be used once, within 60 seconds"
_NO_SESSION = NotFound(
    "This request has no session: it was authenticated with an API key", code="SESSION_NOT_FOUND"
)
_FROM_SESSION = Forbidden("Only an API key itself makes a code, not a session")
_NOTHING = ValidationFailed(
    "Validation failed",
    details=[FieldError("key", "Key or code is required", has_value=False)],
)


class SessionRoutes:
    """Handlers of the session routes."""

    def __init__(
        self, keys: KeyRing, sessions: Sessions, guard: KeyGuard, browsers: Browsers
    ) -> None:
        self._keys = keys
        self._sessions = sessions
        self._guard = guard
        self._browsers = browsers

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="POST",
                path="/api/session",
                id="createSession",
                handler=self.create,
                scope=None,
                tag="Sessions",
                summary="Log a browser in",
                answers={204: None},
                sends={"Set-Cookie": "The cookie of the session, which pages cannot read"},
                errors=[
                    _NOTHING,
                    Unauthorized(_BAD_KEY, headers={"WWW-Authenticate": "Bearer"}),
                    HOST_NOT_ALLOWED,
                    CROSS_SITE,
                    TooManyRequests(
                        "Too many failed authentications from this address", retry_after=3
                    ),
                ],
                repeatable=True,
            ),
            Route(
                method="GET",
                path="/api/session",
                id="getSession",
                handler=self.show,
                scope=Scope.READ,
                tag="Sessions",
                summary="Read the session of the request",
                answers={200: SessionResponse},
                errors=[_NO_SESSION],
            ),
            Route(
                method="DELETE",
                path="/api/session",
                id="deleteSession",
                handler=self.delete,
                scope=Scope.READ,
                tag="Sessions",
                summary="Log a browser out",
                answers={204: None},
                sends={"Set-Cookie": "It removes the cookie"},
                errors=[_NO_SESSION],
                repeatable=True,
            ),
            Route(
                method="POST",
                path="/api/session/codes",
                id="createLoginCode",
                handler=self.make_code,
                scope=Scope.READ,
                tag="Sessions",
                summary="Make a one-time code that logs a browser in",
                answers={201: LoginCodeResponse},
                errors=[
                    _FROM_SESSION,
                    Conflict(
                        "This request was already answered; the secret in that answer is not shown "
                        "again",
                        code="IDEMPOTENCY_NOT_REPLAYABLE",
                        details={"id": "code_1"},
                    ),
                ],
            ),
        ]

    async def create(self, call: RouteCall, body: CreateSessionRequest) -> Response:
        """Log a browser in with an API key or a one-time code.

        The session has the scopes of the key and ends with it: after 12 hours without a request,
        after 7 days, or within 2 seconds after the key was revoked. Its cookie authenticates as the
        key does. A request with it that is no GET needs `Sec-Fetch-Site: same-origin` or, without
        that header, an `Origin` that is this server's.
        """
        scope, context = call.request.scope, call.context
        self._browsers.check_log_in(scope, context)
        made = await self._begin(call, body)
        before = await self._sessions.authenticate(self._browsers.session(scope, context) or "")
        if before is not None and before.session is not None:
            # The browser forgets the cookie of that session, so nothing else would end it.
            await call.apply(self._sessions.ending(before.session.id))
        context.key_id = made.session.key_id
        cookie = self._browsers.cookie(made.secret, scope, context)
        return ReadyResponse(b"", 204, [(b"set-cookie", cookie.encode()), _NO_STORE])

    async def _begin(self, call: RouteCall, body: CreateSessionRequest) -> NewSession:
        given = body.model_fields_set
        if "code" in given:
            begun = await self._sessions.begin_with_code(body.code)
            if begun is None:
                raise await self._guard.refused(call.context, _BAD_CODE)
            return begun
        if "key" not in given:
            raise _NOTHING
        caller = await self._keys.authenticate(body.key)
        if caller is None:
            raise await self._guard.refused(call.context, _BAD_KEY)
        await self._guard.count(caller)
        return await self._sessions.begin(caller)

    async def show(self, call: RouteCall) -> Response:
        """Read whose session the request has, and when it ends."""
        session = _session_of(call)
        key = await self._keys.stored(session.key_id)
        ends = session.ends_at
        if key is not None and key.expires_at is not None:
            ends = min(ends, key.expires_at)
        return answer(
            SessionResponse(
                key_id=session.key_id,
                name=call.caller.name,
                scopes=in_order(call.caller.scopes),
                expires_at=ends,
            )
        )

    async def delete(self, call: RouteCall) -> Response:
        """End the session of the request, and remove its cookie."""
        await call.apply(self._sessions.ending(_session_of(call).id))
        cookie = self._browsers.no_cookie(call.request.scope, call.context)
        return ReadyResponse(b"", 204, [(b"set-cookie", cookie.encode())])

    async def make_code(self, call: RouteCall, body: NoFields) -> Response:
        """Make a code with which a browser logs in as the API key of the request.

        It is valid for 60 seconds and can be used once. A session cannot make one.
        """
        if call.caller.session is not None:
            raise _FROM_SESSION
        url = self._browsers.url(call.request.scope, call.context)

        def made(new: NewCode) -> Reply:
            shown = LoginCodeResponse(
                code=new.text, url=login_url(url, new.text), expires_at=new.code.expires_at
            )
            return reply(shown, 201, {"Cache-Control": "no-store"}, secret_of=new.code.id)

        return await call.run_once(self._sessions.code_creation(call.caller.key_id), made)


def _session_of(call: RouteCall) -> Session:
    if call.caller.session is None:
        raise _NO_SESSION
    return call.caller.session

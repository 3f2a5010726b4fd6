# SPDX-License-Identifier: Apache-2.0
"""Requests of browsers: under which names they may reach this server, and which are its own.

A browser adds the cookie of a session to requests that other pages cause. `SameSite=Strict` keeps
it from those of other sites; a page on another port of the same host is of the same site. So a
change needs a proof that the browser sends and pages cannot forge: `Sec-Fetch-Site` (W3C Fetch
Metadata) or `Origin` (RFC 6454). A name that another site has bound to this address is refused.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final

from starlette.types import Scope as AsgiScope

from novitai.api.http.context import RequestContext, header_values
from novitai.domain.session import LONGEST_MS
from novitai.errors import CrossSiteRequest, HostNotAllowed

_HOST: Final = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
_PORTS: Final = {"http": 80, "https": 443}
_MAX_SHOWN: Final = 100
_SECONDS: Final = LONGEST_MS // 1000

Place = tuple[str, str, int]
"""An origin: scheme, host and port."""


class Browsers:
    """Judges requests of browsers, and writes and reads the cookie of a session.

    Args:
        installation_id: It is part of the name of the cookie: browsers do not tell the ports of
            one host apart, so several servers would overwrite the cookies of each other.
        public_url: The URL under which users reach the server, if it is configured.
    """

    def __init__(self, installation_id: str, public_url: str | None) -> None:
        self._public_url = public_url
        self._public = None if public_url is None else _place(public_url)
        plain = f"novitai-{installation_id}"
        self._plain_name, self._secure_name = plain.encode(), f"__Host-{plain}".encode()

    def check_host(self, scope: AsgiScope) -> None:
        """Check that `Host` is a loopback address or that of the public URL.

        Raises:
            HostNotAllowed: it is another one, or there is none or several.
        """
        found = self._host(scope)
        if found is None or not (_is_loopback(found[0]) or self._is_public(found[0])):
            shown = b", ".join(header_values(scope, b"host")).decode("latin-1")
            raise HostNotAllowed(
                f"Browsers may not reach this server as '{shown[:_MAX_SHOWN]}': use localhost, or "
                "set NOVITAI_PUBLIC_URL to the address that they use"
            )

    def check_own(self, scope: AsgiScope, context: RequestContext) -> None:
        """Check that a page of this server sent a request.

        Raises:
            CrossSiteRequest: `Sec-Fetch-Site` says otherwise; or it is absent, and `Origin` is not
                that of this server.
        """
        site = header_values(scope, b"sec-fetch-site")
        if site:
            if site != [b"same-origin"]:
                raise CrossSiteRequest(
                    "A page of another origin sent this request: Sec-Fetch-Site is not same-origin"
                )
            return
        if not self._has_own_origin(scope, context):
            raise CrossSiteRequest(
                "It is not certain that a page of this server sent this request: it needs "
                "Sec-Fetch-Site: same-origin, or an Origin that is this server's"
            )

    def check_log_in(self, scope: AsgiScope, context: RequestContext) -> None:
        """Check a log-in, which may come from a program without these headers.

        Raises:
            HostNotAllowed: as `check_host`.
            CrossSiteRequest: a browser sent it for a page of another origin, which could log a user
                in with a key of its own.
        """
        self.check_host(scope)
        if any(header_values(scope, name) for name in (b"sec-fetch-site", b"origin")):
            self.check_own(scope, context)

    def url(self, scope: AsgiScope, context: RequestContext) -> str:
        """Return the URL of the dashboard, without a slash at the end.

        Raises:
            HostNotAllowed: there is no public URL, and browsers may not use this `Host`.
        """
        if self._public_url is not None:
            return self._public_url
        self.check_host(scope)
        host = header_values(scope, b"host")[0].decode("latin-1")
        return f"{'https' if context.secure else 'http'}://{host}"

    def session(self, scope: AsgiScope, context: RequestContext) -> str | None:
        """Return the secret in the cookie of a request; None if it has none.

        Several cookies of that name are no secret: one may be of a page on another port.
        """
        name = self._name(scope, context)
        found = [
            value.strip()
            for header in header_values(scope, b"cookie")
            for given, _, value in (part.partition(b"=") for part in header.split(b";"))
            if given.strip() == name
        ]
        if not found:
            return None
        return found[0].decode("latin-1") if len(found) == 1 else ""

    def cookie(self, secret: str, scope: AsgiScope, context: RequestContext) -> str:
        """Return the `Set-Cookie` that stores a secret."""
        return self._set(f"{secret}; Max-Age={_SECONDS}", scope, context)

    def no_cookie(self, scope: AsgiScope, context: RequestContext) -> str:
        """Return the `Set-Cookie` that removes the cookie."""
        return self._set("; Max-Age=0", scope, context)

    def _set(self, value: str, scope: AsgiScope, context: RequestContext) -> str:
        secure = "; Secure" if self._is_secure(scope, context) else ""
        name = self._name(scope, context).decode()
        return f"{name}={value}; Path=/; HttpOnly; SameSite=Strict{secure}"

    def _name(self, scope: AsgiScope, context: RequestContext) -> bytes:
        return self._secure_name if self._is_secure(scope, context) else self._plain_name

    def _is_secure(self, scope: AsgiScope, context: RequestContext) -> bool:
        """Whether the browser uses HTTPS.

        On a loopback address without HTTPS, the cookie is plain: Safari drops one with `Secure`
        there, and Chrome one with `__Host-`.
        """
        if context.secure:
            return True
        # A proxy that is not trusted may have ended TLS. It may leave the port out of `Host`.
        found, public = self._host(scope), self._public
        return (
            found is not None
            and public is not None
            and public[0] == "https"
            and found[0] == public[1]
            and found[1] in {None, public[2]}
        )

    def _has_own_origin(self, scope: AsgiScope, context: RequestContext) -> bool:
        given, host = header_values(scope, b"origin"), self._host(scope)
        if len(given) != 1 or host is None:
            return False
        origin = _place(given[0].decode("latin-1"))
        scheme = "https" if self._is_secure(scope, context) else "http"
        own = {(scheme, host[0], _PORTS[scheme] if host[1] is None else host[1]), self._public}
        return origin is not None and origin in own

    def _is_public(self, host: str) -> bool:
        # Not the port: a proxy may leave it out, and it does not matter against other names.
        return self._public is not None and host == self._public[1]

    def _host(self, scope: AsgiScope) -> tuple[str, int | None] | None:
        given = header_values(scope, b"host")
        found = _HOST.fullmatch(given[0].decode("latin-1")) if len(given) == 1 else None
        return None if found is None else (found[1].lower(), int(found[2]) if found[2] else None)


def _place(url: str) -> Place | None:
    """Return the origin of a URL or of an `Origin`; None if it has none, such as `null`."""
    scheme, found, rest = url.partition("://")
    scheme = scheme.lower()
    host = _HOST.fullmatch(re.split("[/?#]", rest, maxsplit=1)[0])
    if not found or scheme not in _PORTS or host is None:
        return None
    return scheme, host[1].lower(), int(host[2]) if host[2] else _PORTS[scheme]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

# SPDX-License-Identifier: Apache-2.0
"""Parses URLs that may contain a password, and masks the password.

Users paste passwords into URLs without percent-encoding. A `/`, `?` or `#` in a password is
accepted if the URL has only one meaning, and refused with a message if not. No message quotes any
part of a URL that may be a secret.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

MASK: Final = "***"

_POSTGRESQL: Final = frozenset({"postgresql", "postgres"})
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
_IN_TEXT: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^\s\"'<>]+")
_END_OF_PLACE: Final = re.compile(r"[/?#]")
_HOST_AND_PORT: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]+)?")
_ENCODE: Final = "percent-encode special characters of the user and the password (/ is %2F, @ %40)"

# The URL parameters that redis-py supports, by the type of their value.
_REDIS_NUMBERS: Final = frozenset(
    {
        "db",
        "health_check_interval",
        "max_connections",
        "protocol",
        "socket_connect_timeout",
        "socket_timeout",
        "timeout",
    }
)
_REDIS_SWITCHES: Final = frozenset({"retry_on_timeout", "socket_keepalive", "ssl_check_hostname"})
_REDIS_WORDS: Final = frozenset(
    {
        "client_name",
        "password",
        "ssl_ca_certs",
        "ssl_ca_path",
        "ssl_cert_reqs",
        "ssl_certfile",
        "ssl_keyfile",
        "ssl_password",
        "username",
    }
)
_REDIS_NAMES: Final = _REDIS_NUMBERS | _REDIS_SWITCHES | _REDIS_WORDS
_SWITCH: Final = frozenset({"0", "1", "f", "false", "n", "no", "t", "true", "y", "yes"})


class UrlError(ValueError):
    """A URL is invalid; the message says why and quotes no possible secret."""


@dataclass(frozen=True, slots=True, repr=False)
class Parts:
    """The parts of a URL, still percent-encoded; `place` is the host and port."""

    scheme: str
    user: str | None
    password: str | None
    place: str
    path: str
    query: str

    def secrets(self) -> set[str]:
        """Return the password, both raw and decoded."""
        return {self.password, unquote(self.password)} if self.password else set()


def split(url: str) -> Parts:
    """Split a URL into its parts.

    The user and the password end at the last `@` before the first `/` or `?`. If there is no such
    `@`, and the first colon is not followed by a port, the password contains the `/` or `?`.

    Raises:
        UrlError: the text is not a URL, or it is ambiguous.
    """
    scheme, found, rest = url.partition("://")
    if not found or not _SCHEME.fullmatch(scheme):
        raise UrlError("must begin with a scheme and ://")
    place, behind = _cut(rest)
    user_info = None
    if "@" in place:
        user_info, _, place = place.rpartition("@")
    elif "@" in behind and _no_port(place):
        user_info, _, rest = rest.partition("@")
        place, behind = _cut(rest)
    path, asked, query = behind.partition("?")
    if "@" in path or (user_info is not None and "@" in place):
        raise UrlError(f"has a misplaced @; {_ENCODE}")
    user = password = None
    if user_info is not None:
        user, colon, after = user_info.partition(":")
        password = after if colon else None
    return Parts(scheme.lower(), user, password, place, path, query if asked else "")


def secrets_of(url: str) -> set[str]:
    """Return the secrets in a URL: its password, raw and decoded, if it has one.

    Query values whose names indicate a secret are included.
    """
    try:
        parts = split(url)
    except UrlError:
        return set()
    hidden = parts.secrets()
    for name, value in parse_qsl(parts.query):
        if "password" in name or name in {"token", "secret", "key"}:
            hidden.add(value)
    return hidden


def masked(url: str) -> str:
    """Return a URL of the settings with its password and its query masked.

    When in doubt, it masks too much: everything from the first colon to the last `@`, and text that
    is in the place of a port but is not a port.
    """
    scheme, found, rest = url.partition("://")
    if not found:
        return MASK
    place = _END_OF_PLACE.split(rest, maxsplit=1)[0]
    colon, at = rest.find(":"), rest.rfind("@")
    shown = ""
    if 0 <= colon < min(at, len(place)) and not (place.startswith("[") and "@" not in place):
        shown, rest = f"{rest[:colon]}:{MASK}@", rest[at + 1 :]
    elif "@" in place:
        # A user without a password: in PostgreSQL URLs a name, in other URLs often a token.
        user, _, _ = place.rpartition("@")
        shown = f"{user if scheme.lower() in _POSTGRESQL else MASK}@"
        rest = rest[len(user) + 1 :]
    place = _END_OF_PLACE.split(rest, maxsplit=1)[0]
    if _no_port(place):
        return f"{scheme}://{shown}{place.partition(':')[0]}:{MASK}"
    visible = re.split(r"[?#]", rest, maxsplit=1)[0]
    hidden = rest[len(visible) : len(visible) + 1]
    return f"{scheme}://{shown}{visible}{hidden}{MASK if hidden else ''}"


def masked_login(url: str) -> str:
    """Return a valid URL with only its user name and password masked; its query is shown.

    Raises:
        ValueError: the URL is invalid.
    """
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url
    return urlunsplit(parts._replace(netloc=f"{MASK}@{parts.netloc.rpartition('@')[2]}"))


def masked_input(text: str) -> str:
    """Return a text that should be a URL, valid or not, as `masked_login` does if it is one."""
    try:
        shown = masked_login(text)
    except ValueError:
        return MASK
    # Text that is not a URL may still have a password before its @.
    return shown if shown != text or "@" not in text else f"{MASK}@{text.rpartition('@')[2]}"


def mask_within(text: str) -> str:
    """Mask every URL within a text."""

    def one(found: re.Match[str]) -> str:
        url = found[0].rstrip(".,;:!)]}")
        return masked(url) + found[0][len(url) :]

    return _IN_TEXT.sub(one, text)


def database_scheme(url: str) -> str:
    """Return whether a URL names a `sqlite` or a `postgresql` database.

    Raises:
        UrlError: the scheme is another one.
    """
    scheme = url.partition(":")[0].lower()
    if scheme in _POSTGRESQL:
        return "postgresql"
    if scheme == "sqlite":
        return scheme
    raise UrlError("must begin with sqlite:///, postgresql:// or postgres://")


def read_http(url: str, *, schemes: frozenset[str], example: str) -> str:
    """Check an HTTP or proxy URL, and return it with its credentials percent-encoded.

    Raises:
        UrlError: the scheme is not allowed, or the host or port is missing or invalid.
    """
    parts = split(url)
    if parts.scheme not in schemes or parts.query or "#" in parts.place + parts.path:
        names = " or ".join(f"{scheme}://" for scheme in sorted(schemes))
        raise UrlError(f"must begin with {names} and have no query, such as {example}")
    _one_place(parts.place, needs_host=True)
    return _written(parts)


def read_redis(url: str) -> str:
    """Check a Redis URL, and return it with its credentials percent-encoded.

    Raises:
        UrlError: redis-py could not use it.
    """
    parts = split(url)
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise UrlError("must begin with redis://, rediss:// or unix://")
    if parts.scheme == "unix":
        if parts.place or not parts.path.strip("/"):
            raise UrlError("must name a socket, such as unix:///run/redis/redis.sock")
    else:
        _one_place(parts.place, needs_host=False)
        if not re.fullmatch(r"/?[0-9]{0,9}", parts.path):
            raise UrlError(f"must end with the number of a database, such as /0; {_ENCODE}")
    _check_redis_query(parts.query)
    return _written(parts)


def word(name: str) -> str:
    """Return a parameter's name for a message, or `""` if it might be part of a password."""
    return f" {name}" if re.fullmatch(r"[A-Za-z_]{2,40}", name) else ""


def _check_redis_query(query: str) -> None:
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in _REDIS_NAMES:
            shown = "" if "@" in query else word(name)
            raise UrlError(f"has a parameter{shown} that is not supported; {_ENCODE}")
        if name in _REDIS_NUMBERS and not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,6})?", value):
            raise UrlError(f"must have a number as its {name}")
        if name in _REDIS_SWITCHES and value.lower() not in _SWITCH:
            raise UrlError(f"must have true or false as its {name}")


def _one_place(place: str, *, needs_host: bool) -> None:
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:\s#]*)(?::([0-9]{1,5}))?", place)
    if match is None or (match[2] is not None and not 0 < int(match[2]) < 65_536):
        raise UrlError(f"must have a host and a port between 1 and 65535; {_ENCODE}")
    if needs_host and not match[1]:
        raise UrlError("must name a host")


def _written(parts: Parts) -> str:
    user_info = ""
    if parts.user is not None:
        user_info = quote(unquote(parts.user), safe="")
        if parts.password is not None:
            user_info += f":{quote(unquote(parts.password), safe='')}"
        user_info += "@"
    asked = f"?{parts.query}" if parts.query else ""
    return f"{parts.scheme}://{user_info}{parts.place}{parts.path}{asked}"


def _cut(rest: str) -> tuple[str, str]:
    end = re.search(r"[/?]", rest)
    return (rest[: end.start()], rest[end.start() :]) if end else (rest, "")


def _no_port(place: str) -> bool:
    """Whether a colon is followed by something other than a port, as in `user:password`."""
    return not all(_HOST_AND_PORT.fullmatch(one) for one in place.split(","))

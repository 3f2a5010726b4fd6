# SPDX-License-Identifier: Apache-2.0
"""Clean text and addresses from outside before they are stored, shown or logged.

Text to be shown passes through `plain` or `message`, an address through `read_address`. Pure: no
name is resolved here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from novitai.domain.addresses import MAX_HOST, read_host

MAX_ADDRESS: Final = 2_048
"""The longest address that is accepted, user info and query included."""
MAX_SHOWN_ADDRESS: Final = 300
"""The longest address that is shown."""
_MAX_PORT: Final = 65_535
# Several scripts need joiners. Every other format character is invisible, and some change the
# direction of the text after them.
_JOINERS: Final = frozenset("\u200c\u200d")
_DROPPED: Final = frozenset({"Cc", "Cf", "Cs", "Co"})
_BREAKS: Final = frozenset({"Zl", "Zp"})
# Characters of Unicode's Default_Ignorable_Code_Point that Python calls printable: fillers,
# variation selectors and the combining grapheme joiner.
_IGNORABLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
_SPACES: Final = frozenset("\t\n\v\f\r\x1c\x1d\x1e\x1f\x85")
# A text is read up to this many times its limit, because characters in between may be dropped.
_READ_AHEAD: Final = 16
# Does not match an image reference with a tag and a digest: `name:tag@sha256:...`.
_USER_INFO: Final = re.compile(
    r"(?<![^\s\"'(=,])[^\s/@:\"'(=,]{1,256}:[^\s/@]{1,256}@(?!sha[0-9]{3}:)"
)
_URL_USER: Final = re.compile(r"(?<=://)[^\s/@]{1,512}@")
_TOKEN: Final = re.compile(
    r"(?i)([?&#;](?:[a-z0-9_-]{0,32}(?:token|key|secret|signature)|auth|sig|passw(?:or)?d|pwd)=)"
    r"[^\s&#;]+"
)
_HIDDEN: Final = "***"
# Hiding every "1" would make a message unreadable and protect nothing.
_MIN_SECRET: Final = 4
# Scheme, user info, host, port, and the rest: a path (RFC 3986 §3.3), a query, a fragment.
_URL: Final = re.compile(
    r"(https?)://([^/?#\\]*@)?([^/?#@:\\\[\]]+|\[[^/?#@\\\[\]]+\])(?::([0-9]{0,5}))?"
    r"((?:/[a-z0-9._~!$&'()*+,;=:@%/-]*)?(?:[?#][^\\]*)?)",
    re.IGNORECASE | re.ASCII,
)
# Fast path for most names: already normalized, and not a numeric address.
_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_DIGITS: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


def plain(text: str, limit: int) -> str:
    """Return one line of printable text of at most `limit` characters.

    Line breaks and tabs become spaces. Control characters (including ESC), bidirectional and other
    invisible format characters, and lone surrogates are dropped.
    """
    if len(text) <= limit and text.isprintable():
        return text
    kept = []
    for letter in text[: limit * _READ_AHEAD]:
        category = unicodedata.category(letter)
        if letter in _SPACES or category in _BREAKS:
            kept.append(" ")
        elif category not in _DROPPED or letter in _JOINERS:
            kept.append(letter)
    return "".join(kept)[:limit].strip()


def first_unseen(text: str) -> str | None:
    """Return the first invisible character; None if there is none. U+0020 counts as visible.

    Invisible are controls, format characters (including bidirectional ones), other spaces, line
    separators, surrogates, unassigned code points, fillers and variation selectors.
    """
    for letter in text:
        if not letter.isprintable() or _IGNORABLE.match(letter):
            return letter
    return None


def message(text: str, limit: int) -> str:
    """Clean a message as `plain` does, and hide user info and tokens in its addresses."""
    shown = plain(text, limit * _READ_AHEAD)
    if "@" in shown:
        shown = _USER_INFO.sub(f"{_HIDDEN}@", _URL_USER.sub(f"{_HIDDEN}@", shown))
    if "=" in shown:
        shown = _TOKEN.sub(rf"\1{_HIDDEN}", shown)
    return shown[:limit].strip()


def hide(text: str, secrets: Iterable[str]) -> str:
    """Hide the given secrets in a text, except those of fewer than four characters."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, _HIDDEN)
    return text


def hide_shown(text: str, secrets: Iterable[str], limit: int) -> str:
    """Hide secrets in a text that `message` returned with this limit.

    In such a text line breaks have become spaces, and a secret may be cut off at the end.
    """
    if not text:
        return text
    known = {shown for secret in secrets for shown in (secret, plain(secret, len(secret)))}
    shown = hide(text, known)
    if len(text) < limit - _READ_AHEAD:  # not cut, even if spaces were stripped from its end
        return shown
    for secret in sorted(known, key=len, reverse=True):
        for length in range(len(secret) - 1, _MIN_SECRET - 1, -1):
            if shown.endswith(secret[:length]):
                return shown[:-length] + _HIDDEN
    return shown


def read_address(text: str) -> str:
    """Normalize an `http(s)` URL or `host:port`; return `""` for anything else.

    The result has a well-formed host and port, no spaces and no control characters. It may contain
    user info and tokens; `without_secrets` removes them.
    """
    return read_url(text) or _read_host_and_port(text.strip())


def read_url(text: str) -> str:
    """Normalize an `http(s)` URL; return `""` for anything else."""
    url = text.strip()
    if not _is_visible(url) or (parts := _URL.fullmatch(url)) is None:
        return ""
    scheme, user, name, digits, rest = parts.groups(default="")
    host = read_host_name(name)
    if not host or (digits and read_port(digits) is None):
        return ""
    return f"{scheme.lower()}://{user}{host}{digits and ':' + digits}{rest}"


def without_secrets(address: str) -> str:
    """Remove the user info, the query and the fragment from an address of `read_address`.

    The whole query is removed because a token may have any parameter name. Returns `""` if the rest
    is longer than `MAX_SHOWN_ADDRESS`.
    """
    scheme, separator, rest = address.rpartition("://")
    place = re.split(r"[;?#]", rest, maxsplit=1)[0]
    authority, slash, path = place.partition("/")
    shown = f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
    return shown if len(shown) <= MAX_SHOWN_ADDRESS else ""


def secrets_of(address: str) -> set[str]:
    """Return the values that `without_secrets` removes from an address, raw and decoded."""
    rest = address.rpartition("://")[2]
    place, *hidden = re.split(r"[;?#]", rest, maxsplit=1)
    user = place.partition("/")[0].rpartition("@")[0]
    found = {user, user.partition(":")[2]}
    for piece in re.split(r"[;?#&]", hidden[0] if hidden else ""):
        found.add(piece.partition("=")[2] or piece)
    return (found | {unquote(piece) for piece in found}) - {""}


def read_port(digits: str) -> int | None:
    """Parse a port number; return None if it is invalid."""
    port = int(digits) if _DIGITS.fullmatch(digits) else 0
    return port if 0 < port <= _MAX_PORT else None


def read_host_name(text: str) -> str:
    """Normalize a host; IPv6 with or without brackets. Return `""` if it is invalid."""
    try:
        return _host(text.removeprefix("[").removesuffix("]"))
    except ValueError:
        return ""


def _read_host_and_port(text: str) -> str:
    if not _is_visible(text):
        return ""
    user, at, place = text.removeprefix("tcp://").rpartition("@")
    name, _, digits = place.rpartition(":")
    port = read_port(digits)
    if port is None or "/" in user:
        return ""
    if ":" in name and not name.startswith("["):
        return ""
    host = read_host_name(name)
    return f"{user}{at}{host}:{port}" if host else ""


def _host(name: str) -> str:
    if len(name) <= MAX_HOST and _NAME.fullmatch(name):
        return name
    return read_host(f"[{name}]" if ":" in name else name).name


def _is_visible(text: str) -> bool:
    return len(text) <= MAX_ADDRESS and text.isascii() and text.isprintable() and " " not in text

# SPDX-License-Identifier: Apache-2.0
"""Text and addresses that other people chose: what of them is kept, shown and written down.

Text that is shown passes `plain` or `message`, an address passes `read_address`. Pure: no name is
ever resolved here.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from novitai.domain.addresses import MAX_HOST, read_host

MAX_ADDRESS: Final = 2_048
"""The longest address that is read, user info and query included."""
MAX_SHOWN_ADDRESS: Final = 300
"""The longest address that is shown."""
_MAX_PORT: Final = 65_535
# Joiners shape the words of several scripts; every other format character is invisible, and some
# turn the direction of what follows.
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
# How much of a long text is read for its first characters: so much may be dropped between them.
_READ_AHEAD: Final = 16
# Not the tag of an image before its digest: `name:tag@sha256:...`.
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
# A name that needs no other spelling and is no number: most are.
_NAME: Final = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.){1,8}[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?"
)
_DIGITS: Final = re.compile(r"[0-9]{1,5}", re.ASCII)


def plain(text: str, limit: int) -> str:
    """Make one line of printable text of at most `limit` characters.

    Line breaks and tabs become spaces. Control characters (ESC among them), bidirectional and
    other invisible format characters and lone surrogates are dropped.
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
    """Find the first character that a reader does not see as one; a space is seen.

    Controls, format characters (bidirectional ones among them), other spaces, line separators,
    surrogates, characters that Unicode does not define, fillers and variation selectors.
    """
    for letter in text:
        if not letter.isprintable() or _IGNORABLE.match(letter):
            return letter
    return None


def message(text: str, limit: int) -> str:
    """Do as `plain` does, and hide user info and tokens of the addresses in a message."""
    shown = plain(text, limit * _READ_AHEAD)
    if "@" in shown:
        shown = _USER_INFO.sub(f"{_HIDDEN}@", _URL_USER.sub(f"{_HIDDEN}@", shown))
    if "=" in shown:
        shown = _TOKEN.sub(rf"\1{_HIDDEN}", shown)
    return shown[:limit].strip()


def hide(text: str, secrets: Iterable[str]) -> str:
    """Hide secrets that are known in a text; not those of fewer than four characters."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            text = text.replace(secret, _HIDDEN)
    return text


def hide_shown(text: str, secrets: Iterable[str], limit: int) -> str:
    """Hide secrets in a text that `message` made with this limit, as `hide` does in a raw one.

    There, line breaks are spaces, and a secret may be cut off at the end.
    """
    if not text:
        return text
    known = {shown for secret in secrets for shown in (secret, plain(secret, len(secret)))}
    shown = hide(text, known)
    if len(text) < limit - _READ_AHEAD:  # not cut, whatever was stripped off its end
        return shown
    for secret in sorted(known, key=len, reverse=True):
        for length in range(len(secret) - 1, _MIN_SECRET - 1, -1):
            if shown.endswith(secret[:length]):
                return shown[:-length] + _HIDDEN
    return shown


def read_address(text: str) -> str:
    """Read an `http(s)` URL, or `host:port`; `""` for anything else.

    What comes back has a well-formed host and port, no spaces and no control characters. It may
    hold user info and tokens: `without_secrets` leaves them out.
    """
    return read_url(text) or _read_host_and_port(text.strip())


def read_url(text: str) -> str:
    """Read an `http(s)` URL; `""` for anything else."""
    url = text.strip()
    if not _is_visible(url) or (parts := _URL.fullmatch(url)) is None:
        return ""
    scheme, user, name, digits, rest = parts.groups(default="")
    host = read_host_name(name)
    if not host or (digits and read_port(digits) is None):
        return ""
    return f"{scheme.lower()}://{user}{host}{digits and ':' + digits}{rest}"


def without_secrets(address: str) -> str:
    """Leave out of an address that was read the user info, the query and the fragment.

    Which names a token goes by is not known, so no part of a query is shown. `""` where what is
    left is too long to be shown.
    """
    scheme, separator, rest = address.rpartition("://")
    place = re.split(r"[;?#]", rest, maxsplit=1)[0]
    authority, slash, path = place.partition("/")
    shown = f"{scheme}{separator}{authority.rpartition('@')[2]}{slash}{path}"
    return shown if len(shown) <= MAX_SHOWN_ADDRESS else ""


def secrets_of(address: str) -> set[str]:
    """List what `without_secrets` leaves out of an address, piece by piece, raw and decoded."""
    rest = address.rpartition("://")[2]
    place, *hidden = re.split(r"[;?#]", rest, maxsplit=1)
    user = place.partition("/")[0].rpartition("@")[0]
    found = {user, user.partition(":")[2]}
    for piece in re.split(r"[;?#&]", hidden[0] if hidden else ""):
        found.add(piece.partition("=")[2] or piece)
    return (found | {unquote(piece) for piece in found}) - {""}


def read_port(digits: str) -> int | None:
    """Read the number of a port; None if it is none."""
    port = int(digits) if _DIGITS.fullmatch(digits) else 0
    return port if 0 < port <= _MAX_PORT else None


def read_host_name(text: str) -> str:
    """Read a host, an IPv6 address with or without its brackets; `""` if it is none."""
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

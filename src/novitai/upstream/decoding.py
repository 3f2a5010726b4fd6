# SPDX-License-Identifier: Apache-2.0
"""Decodes the JSON of a response; one invalid value does not make the whole response unreadable.

Users choose the names in a listing, so it may contain half a surrogate pair, a raw line break or a
byte that is not UTF-8. The strict decoder is tried first. If it fails, the document is repaired
value by value and decoded again.
"""

from __future__ import annotations

import contextlib
import json
import re
from typing import Final

import orjson

from novitai.upstream.wire import Json

MAX_DEPTH: Final = 64
"""Maximum nesting depth of a repaired document; deeper values are replaced with `null`."""
_MAX_NUMBER: Final = 400
_REPLACEMENT: Final = "\ufffd"

# Possessive quantifiers: an unterminated string costs one pass in total, not one per quote.
_TOKEN: Final = re.compile(
    r'(?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+")|(?P<open>[\[{])|(?P<close>[\]}])'
    r'|(?P<gap>[\s:,]++)|(?P<word>[^\s"\[\]{}:,]++)|(?P<broken>")',
    re.DOTALL,
)
_WORD: Final = re.compile(
    r"true|false|null|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII
)
# The first group matches a valid escape; anything else after a backslash is invalid, including half
# of a surrogate pair.
_ESCAPE: Final = re.compile(
    r'\\(?:(["\\/bfnrt]'
    r"|u(?![dD][89a-fA-F])[0-9a-fA-F]{4}"
    r"|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})"
    r"|u[0-9a-fA-F]{4}|)"
)


def decode(body: bytes) -> Json:
    """Decode a JSON document; replace invalid parts of values.

    Undecodable bytes, invalid escapes and halves of surrogate pairs become U+FFFD. Words that are
    not JSON values (`NaN`, `Infinity`, `01`), numbers of more than 400 characters and values nested
    more than 64 levels deep become `null`. If a key occurs twice in an object, the last one counts.

    Raises:
        ValueError: the document is not JSON. The exception does not contain the document.
    """
    # The decoders' exceptions contain the document with its passwords, so none is chained.
    with contextlib.suppress(orjson.JSONDecodeError):
        found: Json = orjson.loads(body)
        return found
    with contextlib.suppress(ValueError):
        mended = _mend(body.decode("utf-8", "replace").removeprefix("\ufeff"))
        lenient: Json = json.loads(mended, strict=False)
        return lenient
    raise ValueError("not JSON")


def _mend(document: str) -> str:
    depth = 0

    def mend(token: re.Match[str]) -> str:
        nonlocal depth
        kind, text = token.lastgroup, token[0]
        if kind == "broken":
            raise ValueError("unterminated string")
        if kind == "open":
            depth += 1
            if depth <= MAX_DEPTH:
                return text
            return "null" if depth == MAX_DEPTH + 1 else ""
        if kind == "close":
            depth -= 1
            return text if depth < MAX_DEPTH else ""
        if depth > MAX_DEPTH:
            return ""
        if kind == "string":
            return _ESCAPE.sub(_escape, text) if "\\" in text else text
        if kind == "word":
            return text if len(text) <= _MAX_NUMBER and _WORD.fullmatch(text) else "null"
        return text

    return _TOKEN.sub(mend, document)


def _escape(match: re.Match[str]) -> str:
    return match[0] if match[1] else _REPLACEMENT

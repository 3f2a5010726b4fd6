# SPDX-License-Identifier: Apache-2.0
"""Read request bodies: strict JSON objects, limited in size and time."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from starlette.requests import Request

from novitai.errors import (
    FieldError,
    PayloadTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
    ValidationFailed,
)

MAX_BODY: Final = 1 << 20
MERGE_PATCH_TYPES: Final = ("application/merge-patch+json", "application/json")
"""The media types of a merge patch (RFC 7396). A JSON patch (RFC 6902) is something else."""
MAX_DRAINED: Final = 16 * MAX_BODY
"""A body that is too large is read and discarded up to this size: a client that is still sending
when the connection closes would not receive the response."""


@dataclass(frozen=True, slots=True)
class JsonBody:
    """The JSON object of a request, and its digest."""

    fields: Mapping[str, object]

    @property
    def digest(self) -> str:
        """SHA-256 of the object with sorted keys: white space and key order do not matter."""
        canonical = orjson.dumps(self.fields, option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(canonical).hexdigest()


async def read_body(
    request: Request, *, optional: bool, seconds: float, media_types: Sequence[str] = ()
) -> JsonBody:
    """Read a JSON object.

    Args:
        request: The request to read.
        optional: Whether every field is optional, so that an absent or empty body means `{}`.
        seconds: How long the client may take to send the body.
        media_types: The media types it may have; empty for JSON of any kind.

    Raises:
        PayloadTooLarge: the body is larger than 1 MiB.
        UnsupportedMediaType: `Content-Type` is not JSON or not in `media_types`, or the body is
            compressed.
        ValidationFailed: the body is not JSON (`INVALID_JSON`) or not an object.
        RequestTimeout: the body did not arrive in time.
    """
    raw = await read_bytes(request, seconds)
    declared = request.headers.get("content-type", "")
    if not raw:
        if optional:
            return JsonBody({})
        if not declared:
            raise ValidationFailed("The request needs a JSON body", code="INVALID_JSON")
    if not _is_plain(request.headers.getlist("content-encoding")):
        raise UnsupportedMediaType(
            "The request body must be sent without a Content-Encoding",
            headers={"Accept-Encoding": "identity"},
        )
    if not _is_json(declared, media_types):
        wanted = " or ".join(media_types or ["application/json"])
        raise UnsupportedMediaType(f"The request body must be sent as {wanted}")
    value = parse(raw)
    if not isinstance(value, dict):
        detail = FieldError("body", "The body must be a JSON object", has_value=False)
        raise ValidationFailed("Validation failed", details=[detail])
    return JsonBody(value)


async def read_bytes(request: Request, seconds: float) -> bytes:
    """Read a body of at most 1 MiB.

    Raises:
        PayloadTooLarge: the body is larger.
        RequestTimeout: it did not arrive in time.
    """
    chunks = bytearray()
    size = 0
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= MAX_BODY:
                    chunks += chunk
                elif size > MAX_DRAINED:
                    break
    except TimeoutError:
        raise RequestTimeout("The request body did not arrive in time; nothing was done") from None
    if size > MAX_BODY:
        raise too_large()
    return bytes(chunks)


def too_large() -> PayloadTooLarge:
    """Make the error for a body that is too large."""
    return PayloadTooLarge(f"The request body is larger than {MAX_BODY} bytes")


def parse(raw: bytes) -> object:
    """Parse strict JSON: UTF-8; no NaN, lone surrogates, duplicate keys or unbounded nesting.

    Raises:
        ValidationFailed: `INVALID_JSON`, with the reason.
    """
    try:
        value: object = orjson.loads(raw)
        # orjson is strict except for duplicate keys: it keeps the last.
        if isinstance(value, dict | list):
            json.loads(raw, object_pairs_hook=_without_duplicates)
    except orjson.JSONDecodeError as error:
        raise _invalid(str(error)) from None
    except RecursionError:
        raise _invalid("nested too deep") from None
    except ValueError:  # a number with thousands of digits
        raise _invalid("a number is too long") from None
    except _DuplicateKeyError:
        raise _invalid("an object has the same key twice") from None
    return value


class _DuplicateKeyError(Exception):
    """An object has the same key twice."""


def _without_duplicates(pairs: list[tuple[str, object]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _DuplicateKeyError


def _invalid(reason: str) -> ValidationFailed:
    return ValidationFailed(f"The request body is not valid JSON: {reason}", code="INVALID_JSON")


def _is_plain(codings: list[str]) -> bool:
    """Return whether a body has no content coding (RFC 9110, sections 8.4 and 15.5.16)."""
    named = ",".join(codings).split(",")
    return all(coding.strip().lower() in {"", "identity"} for coding in named)


def _is_json(declared: str, media_types: Sequence[str]) -> bool:
    media, _, parameters = declared.partition(";")
    media = media.strip().lower()
    charset = parameters.replace(" ", "").replace('"', "").lower()
    if "charset=" in charset and "charset=utf-8" not in charset:
        return False
    if media_types:
        return media in media_types
    return media == "application/json" or (
        media.startswith("application/") and media.endswith("+json")
    )

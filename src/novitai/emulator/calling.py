# SPDX-License-Identifier: Apache-2.0
"""A call to the emulated API as handlers see it, its reply, and the readers of parameters.

Readers are as lenient as the API: unknown fields are ignored, `""` and null count as absent,
and numbers may be sent as strings (upstream.md §18).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from novitai.emulator.errors import invalid

JsonObject = dict[str, object]

GPU = "/gpu-instance/openapi/v1"
"""The base path of the GPU-instance API (upstream.md §1)."""


@dataclass(frozen=True, slots=True)
class Call:
    """One request.

    Attributes:
        caller: The label of the API key, never the key itself.
        base_url: The emulator's address as this caller can reach it, without a trailing slash.
        now: The virtual time at which the call is handled.
    """

    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, object]
    caller: str
    base_url: str
    now: float

    def param(self, *names: str) -> str:
        """Return the first of the query parameters that is not empty, or the empty string."""
        for name in names:
            value = self.query.get(name)
            if value:
                return value
        return ""

    def number(self, *names: str, default: int = 0) -> int:
        """Read a non-negative integer from the query.

        Raises:
            Refusal: The value is not such an integer.
        """
        value = self.param(*names)
        if not value:
            return default
        if not value.isascii() or not value.isdigit():
            raise invalid(f"{names[0]} must be a whole number, 0 or more")
        return int(value)

    def page(self, number: str = "pageNum", default_size: int = 100) -> tuple[int, int]:
        """Return `(offset, size)`; pages 0 and 1 are both the first (upstream.md §5.2)."""
        size = min(self.number("pageSize", default=default_size) or default_size, 10_000)
        page = self.number(number, "pageNum", "pageNumber", "pageNo", "page")
        return max(0, page - 1) * size, size


@dataclass(frozen=True, slots=True)
class Reply:
    """The response: status, body and headers."""

    status: int
    body: bytes
    content_type: str | None = "application/json"
    headers: tuple[tuple[str, str], ...] = field(default=())


def ok(payload: object) -> Reply:
    """Return a 200 reply with a JSON body."""
    return Reply(200, orjson.dumps(payload))


def text(
    body: Mapping[str, object], name: str, *, least: int = 0, most: int = 255, alias: str = ""
) -> str:
    """Read a string field; an absent field is the empty string, refused if `least` is above 0.

    Raises:
        Refusal: The value is missing, not a string, or too long.
    """
    value = body.get(name)
    if value is None and alias:
        value = body.get(alias)
    if value is None:
        value = ""
    if not isinstance(value, str):
        raise invalid(f"{name} must be a string")
    if len(value) < least:
        raise invalid(f"{name} is required")
    if len(value) > most:
        raise invalid(f"{name} must have at most {most} characters")
    return value


def integer(
    body: Mapping[str, object],
    name: str,
    *,
    default: int | None = None,
    least: int = 0,
    most: int = 2**31 - 1,
) -> int:
    """Read an integer field; digits in a string are accepted.

    Raises:
        Refusal: The value is missing without a default, not an integer, or out of range.
    """
    value = body.get(name)
    if value is None or value == "":
        if default is None:
            raise invalid(f"{name} is required")
        return default
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise invalid(f"{name} must be a whole number")
    if not least <= value <= most:
        raise invalid(f"{name} must be from {least} to {most}")
    return value


def flag(body: Mapping[str, object], name: str) -> bool:
    """Read a boolean field; an absent field is false.

    Raises:
        Refusal: The value is not a boolean.
    """
    value = body.get(name)
    if value is None:
        return False
    if not isinstance(value, bool):
        raise invalid(f"{name} must be true or false")
    return value


def objects(body: Mapping[str, object], name: str, *, most: int = 100) -> list[JsonObject]:
    """Read a list of objects; an absent field is the empty list.

    Raises:
        Refusal: The value is not a list of objects, or is too long.
    """
    value = body.get(name)
    if value is None or value == "":
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise invalid(f"{name} must be a list of objects")
    if len(value) > most:
        raise invalid(f"{name} must have at most {most} entries")
    return value


def strings(body: Mapping[str, object], name: str) -> list[str]:
    """Read a non-empty list of strings.

    Raises:
        Refusal: The value is missing or not such a list.
    """
    value = body.get(name)
    if not isinstance(value, list) or not value or not all(isinstance(e, str) for e in value):
        raise invalid(f"{name} must be a non-empty list of strings")
    return value


def one_of(value: str, allowed: Sequence[str], name: str) -> str:
    """Return the value if it is one of `allowed`.

    Raises:
        Refusal: The value is not allowed.
    """
    if value not in allowed:
        raise invalid(f"{name} must be one of {', '.join(allowed)}")
    return value

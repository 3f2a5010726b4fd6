# SPDX-License-Identifier: Apache-2.0
"""The form of requests and responses: camelCase on the wire, snake_case in Python."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Final, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, ValidationError, ValidatorFunctionWrapHandler
from pydantic import WrapValidator as _WrapValidator
from pydantic.alias_generators import to_camel

T = TypeVar("T")

_NAMED_BY_USERS: Final = frozenset({"tags", "envs"})
"""Objects whose keys are the user's own, so that they are sent as they are."""


def _or_text(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError:
        if isinstance(value, str):
            return value
        raise


Open = Annotated[T, _WrapValidator(_or_text)]
"""One of several words. A word of a newer server that this version does not know is kept."""


class Model(BaseModel):
    """An object in a response.

    Fields that this version does not know are kept in `model_extra`. A field that the server leaves
    out is None.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="allow",
        frozen=True,
        # Models that a program does not use cost nothing at its start.
        defer_build=True,
        # The input may contain credentials.
        hide_input_in_errors=True,
    )


def path(*segments: str) -> str:
    """Build a path from its segments; IDs in it are escaped.

    Raises:
        ValueError: a segment is empty or dots, which would lead to another route.
    """
    for segment in segments:
        if segment in {"", ".", ".."}:
            raise ValueError(f"an ID must not be {segment!r}")
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def body(fields: Mapping[str, object], *, nulls: bool = False) -> bytes:
    """Encode the fields of a request as JSON.

    Args:
        fields: The fields in snake_case. A value of None is left out.
        nulls: Whether None is sent as `null`, which removes a value in a merge patch (RFC 7396).
    """
    sent = {name: value for name, value in fields.items() if nulls or value is not None}
    return json.dumps(_named(sent), default=_plain, allow_nan=False).encode()


def query(**values: object) -> list[tuple[str, str]]:
    """Encode the parameters of a query. None is left out, and lists are repeated.

    A trailing `_` in a name avoids a word of Python: `from_`.
    """
    sent: list[tuple[str, str]] = []
    for name, value in values.items():
        each = value if isinstance(value, list | tuple) else [value]
        sent += [(to_camel(name.rstrip("_")), _text(one)) for one in each if one is not None]
    return sent


def _named(value: object) -> object:
    if isinstance(value, Mapping):
        return {
            to_camel(name): inner if name in _NAMED_BY_USERS else _named(inner)
            for name, inner in value.items()
        }
    return value


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return _time(value) if isinstance(value, datetime) else str(value)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return _time(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, tuple | set | frozenset):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent")


def _time(value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError("a time must have a time zone, for example datetime.now(UTC)")
    return value.isoformat()

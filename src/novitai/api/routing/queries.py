# SPDX-License-Identifier: Apache-2.0
"""Parse query strings and headers; query models that several routes share."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function
from starlette.requests import Request

from novitai.api.schemas.wire import (
    AS_TIME_TOLD,
    FieldInvalid,
    RequestModel,
    SentTime,
    Wording,
    absent,
)
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.queries.pagination import PLACE

MAX_LIMIT: Final = 1000
IDEMPOTENCY_KEY: Final = "[!-~]{1,255}"
"""The form of an `Idempotency-Key`, as a regular expression: visible ASCII."""

_IDEMPOTENCY_KEY: Final = re.compile(IDEMPOTENCY_KEY)
_WHOLE: Final = re.compile(r"[0-9]{1,9}")
_OFFSET: Final = "[0-9]{1,9}"
# Hexadecimal UTF-8 of a text of up to 255 characters, at most 4 bytes each.
_WRAPPED: Final = "(?:[0-9a-f]{2}){1,1020}"
EVENT_CURSOR: Final = "^[A-Za-z0-9._~=-]{1,512}$"


From = Annotated[SentTime, Field(alias="from"), Wording("From", wrong=f"From {AS_TIME_TOLD}")]
"""The begin of an interval, as the parameter `from`."""
To = Annotated[SentTime, Field(alias="to"), Wording("To", wrong=f"To {AS_TIME_TOLD}")]
"""The end of an interval, as the parameter `to`."""


@dataclass(frozen=True, slots=True)
class Whole(Wording):
    """An integer parameter between `least` and `most`."""

    least: int = 1
    most: int = MAX_LIMIT

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_before_validator_function(self._number, handler(source))

    def __get_pydantic_json_schema__(
        self, _schema: CoreSchema, _handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.least, "maximum": self.most}

    def _number(self, value: object) -> int:
        if not isinstance(value, str) or not _WHOLE.fullmatch(value):
            raise FieldInvalid(f"{self.label} must be an integer")
        if not self.least <= int(value) <= self.most:
            raise FieldInvalid(f"{self.label} must be between {self.least} and {self.most}")
        return int(value)


@dataclass(frozen=True, slots=True)
class Few(Whole):
    """An integer parameter with few values; the error message lists all of them."""

    def _number(self, value: object) -> int:
        words = [str(number) for number in range(self.least, self.most + 1)]
        if value not in words:
            raise FieldInvalid(f"{self.label} must be one of {', '.join(words)}")
        return words.index(value) + self.least


@dataclass(frozen=True, slots=True)
class OneOf(Wording):
    """A parameter whose value is a member of an enumeration."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        words = [one.value for one in source]

        def word(value: object) -> object:
            if value not in words:
                raise FieldInvalid(f"{self.label} must be one of {', '.join(words)}")
            return source(value)

        return no_info_before_validator_function(word, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        # Inline the values instead of a reference, so that readers see them at the parameter.
        shown = handler.resolve_ref_schema(handler(schema))
        return {"type": "string", "enum": shown["enum"]}


@dataclass(frozen=True, slots=True)
class Flag(Wording):
    """A parameter that is `true` or `false`."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        read = {"true": True, "false": False}
        return no_info_before_validator_function(
            lambda value: read.get(value, value) if isinstance(value, str) else value,
            handler(source),
        )


@dataclass(frozen=True, slots=True)
class Repeatable(Wording):
    """A parameter that may be repeated; one value is a list of one."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return no_info_before_validator_function(
            lambda value: value if isinstance(value, list) else [value], handler(source)
        )


InstanceFilter = Annotated[
    str,
    Field(pattern="^[A-Za-z0-9_]{1,64}$", description="Only this instance"),
    Wording("InstanceId", wrong="InstanceId must be the ID of an instance"),
]
"""The parameter `instanceId`; the instance need not exist."""
NOT_A_CURSOR: Final = Wording("Cursor", wrong="Cursor is not one that a list returned")
_NEXT: Final = "`nextCursor` of the previous page"
# Errors in `limit` and `cursor` are listed after those in filters, an offset before `limit`.
_CURSOR: Final = replace(NOT_A_CURSOR, rank=3)
_OFFSET_CURSOR: Final = replace(NOT_A_CURSOR, rank=1)


class PageQuery(RequestModel):
    """A page of a list in chronological order."""

    limit: Annotated[int, Field(description="Page size"), Whole("Limit", rank=2)] = absent()
    cursor: Annotated[str, Field(pattern=f"^{PLACE}$", description=_NEXT), _CURSOR] = absent()

    @property
    def most(self) -> int:
        """The page size: `limit`, or 1,000 if it is absent."""
        return self.limit or MAX_LIMIT


class EventsQuery(PageQuery):
    """A page of events; the cursor is an event ID."""

    cursor: Annotated[str, Field(pattern=EVENT_CURSOR, description=_NEXT), _CURSOR] = absent()


class OffsetQuery(PageQuery):
    """A page of a list held in memory; the cursor is the offset of the next item."""

    cursor: Annotated[str, Field(pattern=f"^{_OFFSET}$", description=_NEXT), _OFFSET_CURSOR] = (
        absent()
    )


class WrappedQuery(PageQuery):
    """A page of a list sorted by text from Novita; the cursor is the last text in hexadecimal."""

    cursor: Annotated[str, Field(pattern=f"^{_WRAPPED}$", description=_NEXT), _CURSOR] = absent()


class NoQuery(RequestModel):
    """A query without parameters."""


def query_of(request: Request) -> dict[str, object]:
    """Parse the query string; a repeated parameter becomes the list of its values.

    Validation rejects it, unless the parameter is declared `Repeatable`.
    """
    values: dict[str, list[str]] = {}
    for name, value in request.query_params.multi_items():
        values.setdefault(name, []).append(value)
    return {name: given if len(given) > 1 else given[0] for name, given in values.items()}


def idempotency_key(request: Request) -> str | None:
    """Return the `Idempotency-Key` header; None if it is absent.

    Raises:
        ValidationFailed: it is repeated, empty, longer than 255 characters or not visible ASCII.
    """
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not _IDEMPOTENCY_KEY.fullmatch(given[0]):
        raise ValidationFailed(
            "Validation failed",
            details=[
                FieldError(
                    "Idempotency-Key",
                    "Idempotency-Key must be 1 to 255 visible ASCII characters",
                    has_value=False,
                )
            ],
        )
    return given[0]

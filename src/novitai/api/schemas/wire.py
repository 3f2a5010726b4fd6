# SPDX-License-Identifier: Apache-2.0
"""Building blocks of requests and responses, and validation errors.

pydantic validates; this module reports all errors at once in the wording of the API reference.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
)
from pydantic.alias_generators import to_camel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_core.core_schema import NullableSchema, WithDefaultSchema

from novitai.clock import iso, parse_iso
from novitai.domain.webhook_url import MAX_URL, webhook_url
from novitai.errors import FieldError, ValidationFailed

R = TypeVar("R", bound="RequestModel")

UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
VISIBLE: Final = f"^[^{UNSEEN}]*$"
"""Text without control characters."""
NOT_BLANK: Final = rf"^[^{UNSEEN}]*[^{UNSEEN}\s][^{UNSEEN}]*$"
"""The same, with at least one character that is not a space."""
LINES: Final = r"^(?:[\t\n\r]|[^" + UNSEEN + "])*$"
"""The same as `VISIBLE`, but line breaks and tabs are allowed."""

NAME_TOLD: Final = "Name must contain only letters, digits, hyphens and underscores"
AS_TIME_TOLD: Final = "must be an ISO-8601 time with an offset, such as Z"

_MAX_SHOWN: Final = 200
_MAX_INTEGER: Final = 1 << 63
_MAX_UNKNOWN_TOLD: Final = 20
_VISIBLE: Final = re.compile(f"[^{UNSEEN}\ud800-\udfff]*")
_MESSAGES: Final[Mapping[str, str]] = {
    "string_type": "{label} must be a string",
    "int_type": "{label} must be an integer",
    "float_type": "{label} must be a number",
    "bool_type": "{label} must be true or false",
    "string_too_long": "{label} must be at most {max_length} characters long",
    "greater_than": "{label} must be greater than {gt:g}",
    "greater_than_equal": "{label} must be at least {ge}{unit}",
    "less_than_equal": "{label} must be at most {le:g}{unit}",
    "time_type": "{label} must be an ISO-8601 time",
    "time_parsing": f"{{label}} {AS_TIME_TOLD}",
}
"""Messages by the type of pydantic's error."""


class FieldInvalid(ValueError):
    """A value is invalid. The message is for the client and does not quote the value."""


@dataclass(frozen=True, slots=True)
class Wording:
    """The wording of the validation errors of a field.

    Attributes:
        label: The name of the field in messages.
        missing: The message if the field is missing; by default "<label> is required".
        unit: The unit that follows a number in messages.
        code: The error code if this field is the only invalid one.
        wrong: One message for every error except a missing field.
        pattern: The message if the text does not match its pattern.
        secret: Whether the value must never be shown.
        mask: Masks a value that may contain a secret.
        rank: Errors in fields with a lower rank are listed first.
    """

    label: str
    missing: str | None = None
    unit: str = ""
    code: str | None = None
    wrong: str | None = None
    pattern: str = ""
    secret: bool = False
    mask: Callable[[str], str] | None = None
    rank: int = 0


class JsonSchema(GenerateJsonSchema):
    """Writes schemas in which None means absent: neither `null` nor a default of it.

    Fields have no titles, which would only repeat their names.
    """

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return whether a field gets a title made from its name: never."""
        return False

    def nullable_schema(self, schema: NullableSchema) -> JsonSchemaValue:
        """Return the schema without `null`."""
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: WithDefaultSchema) -> JsonSchemaValue:
        """Return the schema with its default, unless that is None."""
        if schema.get("default", ...) is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)


def absent(description: str | None = None) -> Any:
    """Declare that a field may be absent but not `null`."""
    if description is None:  # as an argument, it would hide the description of the type
        return Field(default=None)
    return Field(default=None, description=description)


def removable() -> Any:
    """Declare that a field of a merge patch may be absent, and that `null` removes its value."""
    return Field(default=None, json_schema_extra=_nullable)


def null_removes(value: object, check: ValidatorFunctionWrapHandler) -> object:
    """Accept `null` in a merge patch (RFC 7396). To be used with `WrapValidator`."""
    return None if value is None else check(value)


def _nullable(schema: dict[str, Any]) -> None:
    if "type" in schema:
        schema["type"] = [schema["type"], "null"]
    elif "$ref" in schema:
        schema["anyOf"] = [{"$ref": schema.pop("$ref")}, {"type": "null"}]


def _time(value: object) -> object:
    """Parse an ISO-8601 time; internal values are already Unix milliseconds."""
    return parse_iso(value) if isinstance(value, str) else value


_AS_TIME: Final = WithJsonSchema({"type": "string", "format": "date-time"})

Time = Annotated[int, BeforeValidator(_time), PlainSerializer(iso, return_type=str), _AS_TIME]
"""A time in a response: Unix milliseconds inside, ISO-8601 on the wire."""


def _sent_time(value: object) -> int:
    if not isinstance(value, str):
        raise PydanticCustomError("time_type", "no time")
    try:
        return parse_iso(value)
    except (ValueError, OverflowError):
        raise PydanticCustomError("time_parsing", "no time") from None


def known(info: ValidationInfo, name: str) -> Any:
    """Return a value from the `context` that was passed to `read`."""
    return (info.context or {})[name]


def _webhook_url(url: str, info: ValidationInfo) -> str:
    return webhook_url(url, allow_private=known(info, "allow_private"))


SentTime = Annotated[int, BeforeValidator(_sent_time), _AS_TIME]
"""A time in a request: ISO-8601 with an offset on the wire, Unix milliseconds inside."""
Name = Annotated[str, Field(min_length=1, max_length=100, pattern="^[A-Za-z0-9_-]+$")]
"""The name of an instance (API reference, "CreateInstanceRequest")."""
WebhookUrl = Annotated[
    str, Field(min_length=1, max_length=MAX_URL, pattern=VISIBLE), AfterValidator(_webhook_url)
]


def check_text(
    label: str, value: object, *, longest: int, shortest: int = 1, lines: bool = False
) -> None:
    """Validate a text inside a field's value, with the messages of a text field.

    Raises:
        FieldInvalid: not a string, too short or too long, or it has control characters.
    """
    if not isinstance(value, str):
        raise FieldInvalid(f"{label} must be a string")
    if len(value) < shortest:
        raise FieldInvalid(f"{label} must be at least {shortest} character long")
    if len(value) > longest:
        raise FieldInvalid(f"{label} must be at most {longest} characters long")
    if not _VISIBLE.fullmatch(re.sub(r"[\t\n\r]", "", value) if lines else value):
        raise FieldInvalid(f"{label} must not contain control characters")


class ResponseModel(BaseModel):
    """An object in a response: camelCase, no undeclared field, no `null`."""

    model_config = ConfigDict(
        alias_generator=to_camel, extra="forbid", validate_by_name=True, from_attributes=True
    )

    def json_bytes(self) -> bytes:
        """Serialize it as the response body."""
        return self.__pydantic_serializer__.to_json(self, by_alias=True, exclude_none=True)


class ListPage(ResponseModel):
    """A page of a list."""

    next_cursor: str | None = absent("`cursor` of the next page; absent on the last one")


class RequestModel(BaseModel):
    """A JSON object or query of a request: camelCase, no undeclared field, no `null`."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", strict=True)

    @classmethod
    def optional(cls) -> bool:
        """Return whether every field is optional."""
        return not any(field.is_required() for field in cls.model_fields.values())


class NoFields(RequestModel):
    """A request without fields; an absent or empty body is the same."""


def read(model: type[R], values: Mapping[str, object], **context: object) -> R:
    """Validate the JSON object or the query of a request.

    Args:
        model: The model to validate against.
        values: The JSON object or the query.
        context: Values that validators need: `now`, `allow_private`.

    Raises:
        ValidationFailed: `details` has every invalid field, by rank and then in the order of the
            model, unknown fields last. If only one field is invalid, `code` is that field's code.
    """
    try:
        return model.model_validate(values, context=context)
    except ValidationError as error:
        raise _failed(model, values, error) from None


def _failed(
    model: type[RequestModel], values: Mapping[str, object], error: ValidationError
) -> ValidationFailed:
    told = _wordings(model)
    wrong: dict[str, FieldError] = {}
    unknown: list[FieldError] = []
    for one in error.errors(include_url=False):
        field = _place(one["loc"], told)
        if field not in told:
            # The value is not shown, because the field may be a misspelt `envs`.
            unknown.append(FieldError(_cut(field), _unknown(field, told), has_value=False))
        elif field not in wrong:
            wrong[field] = _wrong(field, told[field], one, values)
    told_first = sorted(wrong, key=lambda field: told[field].rank)
    details = [*(wrong[field] for field in told_first), *unknown[:_MAX_UNKNOWN_TOLD]]
    alone = told.get(details[0].field) if len(details) == 1 else None
    return ValidationFailed(
        "Validation failed", code=alone.code if alone else None, details=details
    )


def _wordings(model: type[RequestModel], within: str = "") -> dict[str, Wording]:
    """Collect the wordings of a model's fields, and of objects in it as `limits.stopAt`."""
    told: dict[str, Wording] = {}
    for name, field in model.model_fields.items():
        place = within + (field.alias or name)
        told[place] = _wording(field.metadata)
        if isinstance(field.annotation, type) and issubclass(field.annotation, RequestModel):
            told |= _wordings(field.annotation, f"{place}.")
    return told


def _place(location: tuple[int | str, ...], told: Mapping[str, Wording]) -> str:
    """Return the field of an error: `limits.stopAt` for a field of an object in the request."""
    first = str(location[0])
    holds_fields = any(place.startswith(f"{first}.") for place in told)
    return f"{first}.{location[1]}" if holds_fields and len(location) > 1 else first


def _wording(metadata: list[Any]) -> Wording:
    return next(one for one in metadata if isinstance(one, Wording))


def _wrong(
    field: str, told: Wording, error: ErrorDetails, values: Mapping[str, object]
) -> FieldError:
    message = _message(told, error)
    if error["type"] == "missing" or told.secret:
        return FieldError(field, message, has_value=False)
    value: object = values
    for part in field.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    if isinstance(value, str):
        return FieldError(field, message, _cut(told.mask(value) if told.mask else value))
    if value is None or isinstance(value, bool | float):
        return FieldError(field, message, value)
    if isinstance(value, int) and abs(value) < _MAX_INTEGER:
        return FieldError(field, message, value)
    return FieldError(field, message, has_value=False)


def _message(told: Wording, error: ErrorDetails) -> str:
    kind, facts = error["type"], error.get("ctx", {})
    if kind == "model_type":
        return f"{told.label} must be an object"
    if kind == "value_error":
        return str(facts["error"])
    if kind == "missing":
        return told.missing or f"{told.label} is required"
    if told.wrong is not None:
        return told.wrong
    if kind == "string_too_short":
        least = facts["min_length"]
        return f"{told.label} must be at least {least} character{'' if least == 1 else 's'} long"
    if kind in {"string_pattern_mismatch", "string_unicode"}:
        return _malformed(told, error["input"])
    message = _MESSAGES.get(kind, "{label} is not valid")
    return message.format(label=told.label, unit=told.unit, **facts)


def _malformed(told: Wording, value: str) -> str:
    if not _VISIBLE.fullmatch(value):
        return f"{told.label} must not contain control characters"
    return told.pattern or f"{told.label} must not be blank"


def _unknown(field: str, known: Mapping[str, object]) -> str:
    nearest = difflib.get_close_matches(_cut(field), known, n=1)
    return f"Unknown field; did you mean '{nearest[0]}'?" if nearest else "Unknown field"


def _cut(value: str) -> str:
    shown = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…"
    return shown.encode("utf-8", "replace").decode("utf-8")

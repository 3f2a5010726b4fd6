# SPDX-License-Identifier: Apache-2.0
"""Read a JSON object field by field and collect every validation error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final, TypeVar

from novitai.errors import FieldError, ValidationFailed

T = TypeVar("T")

Check = Callable[[object], T]
"""Converts a JSON value, or raises `FieldInvalid`."""

_MAX_SHOWN: Final = 200
_MAX_INTEGER: Final = 1 << 63
_MAX_UNKNOWN_TOLD: Final = 20


class FieldInvalid(Exception):
    """A value is invalid. The message is for the client and does not repeat the value."""


Wrong = FieldInvalid  # the name that api/ uses


class Fields:
    """Reads the fields of one object. Call `finish` last: it raises if anything was wrong.

    Args:
        body: The object.
        codes: The error codes of the fields that have their own.
        secret: The fields that are never shown with their value.
        masks: A function for each field that may contain a secret; it returns the value to show.
    """

    def __init__(
        self,
        body: Mapping[str, object],
        *,
        codes: Mapping[str, str] | None = None,
        secret: frozenset[str] = frozenset(),
        masks: Mapping[str, Callable[[str], str]] | None = None,
    ) -> None:
        self._body = body
        self._codes = codes or {}
        self._secret = secret
        self._masks = masks or {}
        self._known: list[str] = []
        self._errors: list[FieldError] = []

    def require(self, field: str, label: str, check: Check[T], otherwise: T) -> T:
        """Read a required field. If it is invalid, return `otherwise`; `finish` raises later."""
        self._known.append(field)
        if field not in self._body:
            self._errors.append(FieldError(field, f"{label} is required", has_value=False))
            return otherwise
        return self._check(field, check, otherwise)

    def read(self, field: str, check: Check[T], default: T) -> T:
        """Read an optional field."""
        self._known.append(field)
        if field not in self._body:
            return default
        return self._check(field, check, default)

    def finish(self) -> None:
        """Reject unknown fields, and raise if any field was invalid.

        Raises:
            ValidationFailed: with every invalid field in `details`, in the order they were read. If
                there is only one, the error has the code of that field.
        """
        unknown = [field for field in self._body if field not in self._known]
        for field in unknown[:_MAX_UNKNOWN_TOLD]:
            # The value is not shown: it may be that of a misspelt secret field such as `envs`.
            self._errors.append(FieldError(_cut(field), self._unknown(field), has_value=False))
        if not self._errors:
            return
        code = self._codes.get(self._errors[0].field) if len(self._errors) == 1 else None
        raise ValidationFailed("Validation failed", code=code, details=self._errors)

    def _check(self, field: str, check: Check[T], otherwise: T) -> T:
        value = self._body[field]
        try:
            return check(value)
        except FieldInvalid as wrong:
            self._errors.append(self._error(field, str(wrong), value))
            return otherwise

    def _error(self, field: str, message: str, value: object) -> FieldError:
        if field in self._secret:
            return FieldError(field, message, has_value=False)
        if isinstance(value, str):
            mask = self._masks.get(field)
            return FieldError(field, message, _cut(mask(value) if mask else value))
        if value is None or isinstance(value, bool | float):
            return FieldError(field, message, value)
        if isinstance(value, int) and abs(value) < _MAX_INTEGER:
            return FieldError(field, message, value)
        return FieldError(field, message, has_value=False)

    def _unknown(self, field: str) -> str:
        nearest = difflib.get_close_matches(_cut(field), self._known, n=1)
        return f"Unknown field; did you mean '{nearest[0]}'?" if nearest else "Unknown field"


def text(label: str, *, longest: int, shortest: int = 1, lines: bool = False) -> Check[str]:
    """Accept a string of visible characters and spaces; with `lines`, also line breaks and tabs."""

    def check(value: object) -> str:
        if not isinstance(value, str):
            raise FieldInvalid(f"{label} must be a string")
        if len(value) < shortest:
            plural = "" if shortest == 1 else "s"
            raise FieldInvalid(f"{label} must be at least {shortest} character{plural} long")
        if len(value) > longest:
            raise FieldInvalid(f"{label} must be at most {longest} characters long")
        allowed = "\t\n\r" if lines else ""
        if any(not _visible(character) and character not in allowed for character in value):
            raise FieldInvalid(f"{label} must not contain control characters")
        return value

    return check


def not_blank(label: str, *, longest: int) -> Check[str]:
    """Accept a string that contains more than white space."""
    plain = text(label, longest=longest)

    def check(value: object) -> str:
        found = plain(value)
        if not found.strip():
            raise FieldInvalid(f"{label} must not be blank")
        return found

    return check


def whole_number(label: str, *, least: int, most: int, unit: str = "") -> Check[int]:
    """Accept a JSON integer: not `"2"`, not `2.0`, not `true`."""

    def check(value: object) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise FieldInvalid(f"{label} must be an integer")
        if value < least:
            raise FieldInvalid(f"{label} must be at least {least}{unit}")
        if value > most:
            raise FieldInvalid(f"{label} must be at most {most}{unit}")
        return value

    return check


def positive_number(label: str, *, most: float) -> Check[float | None]:
    """Accept a JSON number above 0."""

    def check(value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise FieldInvalid(f"{label} must be a number")
        if not value > 0:  # also true for NaN
            raise FieldInvalid(f"{label} must be greater than 0")
        if value > most:
            raise FieldInvalid(f"{label} must be at most {most:g}")
        return float(value)

    return check


def flag(label: str) -> Check[bool]:
    """Accept `true` or `false`."""

    def check(value: object) -> bool:
        if not isinstance(value, bool):
            raise FieldInvalid(f"{label} must be true or false")
        return value

    return check


def _visible(character: str) -> bool:
    # C0, DEL, C1, surrogates, and the line separators that break logs and headers.
    number = ord(character)
    return not (
        number < 0x20
        or 0x7F <= number <= 0x9F
        or 0xD800 <= number <= 0xDFFF
        or character in "\u2028\u2029"
    )


def _cut(value: str) -> str:
    shown = value if len(value) <= _MAX_SHOWN else value[:_MAX_SHOWN] + "…"
    return shown.encode("utf-8", "replace").decode("utf-8")

# SPDX-License-Identifier: Apache-2.0
"""API keys: their format, checksum and scopes."""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Final

from novitai.domain.key_limits import KeyLimits
from novitai.ids import Ids

PREFIX: Final = "nvt_"
BODY_LENGTH: Final = 32
CHECKSUM_LENGTH: Final = 6
MAX_NAME: Final = 100

_DIGITS: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_FORM: Final = re.compile(rf"{PREFIX}[A-Za-z0-9]{{{BODY_LENGTH + CHECKSUM_LENGTH}}}")


class Scope(StrEnum):
    """The permissions of a key; each scope includes those before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """The position of the scope in the order `read` < `write` < `admin`, from 0."""
        return _RANKS[self]


_RANKS: Final = {Scope.READ: 0, Scope.WRITE: 1, Scope.ADMIN: 2}


@lru_cache(64)
def allows(scopes: frozenset[Scope], needed: Scope) -> bool:
    """Return whether one of `scopes` includes `needed`."""
    return any(scope.rank >= needed.rank for scope in scopes)


def in_order(scopes: Iterable[Scope]) -> list[Scope]:
    """Return the scopes without duplicates, from the lowest rank to the highest."""
    return sorted(set(scopes), key=lambda scope: scope.rank)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """The record of a key, without its text. Times are Unix milliseconds."""

    id: str
    name: str
    scopes: frozenset[Scope]
    created_at: int
    expires_at: int | None = None
    revoked_at: int | None = None
    last_used_at: int | None = None
    limits: KeyLimits | None = None

    def usable(self, now: int) -> bool:
        """Whether the key is neither revoked nor expired."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True)
class KeyRequest:
    """A valid request for a key; `expires_at` in Unix milliseconds."""

    name: str
    scopes: frozenset[Scope]
    expires_at: int | None = None
    limits: KeyLimits | None = None


def make_key(ids: Ids) -> str:
    """Make the text of a new key: `nvt_`, 32 random letters and digits, 6 checksum characters."""
    body = PREFIX + ids.key_body(BODY_LENGTH)
    return body + _checksum(body)


def well_formed(text: str) -> bool:
    """Return whether format and checksum are valid, so a typing error needs no database query."""
    if not _FORM.fullmatch(text):
        return False
    return _checksum(text[:-CHECKSUM_LENGTH]) == text[-CHECKSUM_LENGTH:]


def _checksum(body: str) -> str:
    # CRC-32 in base 62: 2**32 < 62**6. It detects typing errors; it is not a secret.
    number = zlib.crc32(body.encode())
    digits = []
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    return "".join(reversed(digits))

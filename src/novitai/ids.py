# SPDX-License-Identifier: Apache-2.0
"""Identifiers and randomness. Code gets an `Ids` passed in, so that tests are reproducible."""

from __future__ import annotations

import base64
import random
import string
from typing import Final

_LOWER: Final = string.ascii_lowercase + string.digits
_MIXED: Final = string.ascii_letters + string.digits

INSTALLATION_ID_LENGTH: Final = 6
ATTEMPT_ID_LENGTH: Final = 16


class Ids:
    """Makes all identifiers, from the system's entropy unless a source is given."""

    def __init__(self, source: random.Random | None = None) -> None:
        self._random = source or random.SystemRandom()
        # Request IDs are no secrets, and each number of the system's source is a system call.
        self._quick = random.Random(self._random.getrandbits(256))  # noqa: S311 - not for secrets

    def instance(self, now: int) -> str:
        """Make `inst_<unix seconds>_<12 of [a-z0-9]>`; `now` in Unix milliseconds."""
        return f"inst_{now // 1000}_{self.text(12)}"

    def request(self, now: int) -> str:
        """Make `req_<unix seconds>_<12 hexadecimal digits>`; `now` in Unix milliseconds."""
        return f"req_{now // 1000}_{self._quick.getrandbits(48):012x}"

    def prefixed(self, prefix: str) -> str:
        """Make `<prefix>_<20 of [a-z0-9]>`: operations `op`, events `evt`, keys `key`."""
        return f"{prefix}_{self.text(20)}"

    def installation(self) -> str:
        """Make the 6-character installation ID, which marks this installation's instances."""
        return self.text(INSTALLATION_ID_LENGTH)

    def attempt(self) -> str:
        """Make the 16-character attempt ID, which marks the instance of one create call."""
        return self.text(ATTEMPT_ID_LENGTH)

    def text(self, length: int) -> str:
        """Make `length` random characters of [a-z0-9]."""
        return _pick(self._random, _LOWER, length)

    def key_body(self, length: int = 32) -> str:
        """Make `length` random letters and digits for an API key."""
        return _pick(self._random, _MIXED, length)

    def secret(self) -> str:
        """Make a secret of 256 random bits, as 43 characters of base64url."""
        drawn = self._random.getrandbits(256).to_bytes(32)
        return base64.urlsafe_b64encode(drawn).decode().rstrip("=")

    def jitter(self, seconds: float, fraction: float = 0.1) -> float:
        """Return `seconds` changed at random by up to `fraction` of it, up or down."""
        return seconds * (1 + fraction * (2 * self._random.random() - 1))


def _pick(source: random.Random, alphabet: str, length: int) -> str:
    # One number, because each may be a system call; 64 more bits make all texts equally likely.
    number = source.getrandbits(6 * length + 64)
    picked = []
    for _ in range(length):
        number, index = divmod(number, len(alphabet))
        picked.append(alphabet[index])
    return "".join(picked)

# SPDX-License-Identifier: Apache-2.0
"""Sessions of browsers: a browser logs in with an API key once, and is known by a cookie then."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

IDLE_MS: Final = 12 * 3_600_000
"""After this time without a request, a session ends."""
LONGEST_MS: Final = 7 * 86_400_000
"""After this time, a session ends in any case."""
CODE_MS: Final = 60_000
"""How long a one-time code is valid."""


@dataclass(frozen=True, slots=True)
class Credential:
    """How a caller is known: an API key, by its ID, and the session if it came by one."""

    key_id: str
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class Session:
    """The record of a session, without its secret. Times are Unix milliseconds.

    Attributes:
        key_id: The API key of the log-in; the session has its scopes and ends with it.
        settings_key_digest: The digest of the key of the settings, if that key logged in.
        last_used_at: When it was last used, to the minute.
        expires_at: When it ends even if it is used.
    """

    id: str
    key_id: str
    settings_key_digest: str | None
    created_at: int
    last_used_at: int
    expires_at: int

    @property
    def ends_at(self) -> int:
        """When it ends if it is not used again."""
        return min(self.expires_at, self.last_used_at + IDLE_MS)

    def usable(self, now: int) -> bool:
        """Whether it has not ended. Its key may have."""
        return now < self.ends_at


@dataclass(frozen=True, slots=True)
class LoginCode:
    """The record of a one-time code, without the code. Times are Unix milliseconds."""

    id: str
    key_id: str
    settings_key_digest: str | None
    expires_at: int


def login_url(url: str, code: str) -> str:
    """Return the address of the dashboard with a code in its fragment, which is never sent."""
    return f"{url}/#code={code}"

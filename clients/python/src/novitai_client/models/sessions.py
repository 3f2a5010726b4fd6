# SPDX-License-Identifier: Apache-2.0
"""Sessions of browsers."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from novitai_client.wire import Model, Open
from novitai_client.words import Scope


class Session(Model):
    """The session of a browser. It ends at `expires_at` if it is not used again."""

    key_id: str
    name: str
    scopes: list[Open[Scope]]
    expires_at: datetime


class LoginCode(Model):
    """A one-time code that logs a browser in. `url` is the dashboard, with the code in it."""

    code: str = Field(repr=False)
    url: str = Field(repr=False)
    expires_at: datetime

# SPDX-License-Identifier: Apache-2.0
"""API keys."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from novitai_client.wire import Model, Open
from novitai_client.words import BudgetPeriod, Scope


class KeyBudget(Model):
    """What all instances of the key may cost in a period of UTC, in USD."""

    amount: float
    period: Open[BudgetPeriod]


class KeyLimits(Model):
    """The limits of what the key creates; prices are in USD."""

    max_instances: int | None = None
    max_hourly_price: float | None = None
    max_run_minutes: int | None = None
    budget: KeyBudget | None = None


class ApiKey(Model):
    """An API key without its secret text."""

    id: str
    name: str
    scopes: list[Open[Scope]]
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    last_used_at: datetime | None = None
    limits: KeyLimits | None = None


class CurrentKey(Model):
    """The API key of a client. The key in the settings of the server has no `created_at`."""

    id: str
    name: str
    scopes: list[Open[Scope]]
    created_at: datetime | None = None
    expires_at: datetime | None = None
    limits: KeyLimits | None = None


class CreatedKey(Model):
    """A new API key. `key` is shown only in this response."""

    id: str
    name: str
    scopes: list[Open[Scope]]
    key: str = Field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None
    limits: KeyLimits | None = None

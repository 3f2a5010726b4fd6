# SPDX-License-Identifier: Apache-2.0
"""Schemas of API keys."""

from __future__ import annotations

from math import floor
from typing import Annotated, Final

from pydantic import AfterValidator, BeforeValidator, Field, Strict, ValidationInfo

from novitai.api.schemas.budgets import BudgetAmount, SentPeriod
from novitai.api.schemas.instances import MAX_HOURLY_PRICE, MAX_LIMIT_MINUTES
from novitai.api.schemas.wire import (
    NOT_BLANK,
    FieldInvalid,
    ListPage,
    RequestModel,
    ResponseModel,
    SentTime,
    Time,
    Wording,
    absent,
    known,
)
from novitai.clock import END_OF_TIME
from novitai.domain.api_key import MAX_NAME, ApiKey, KeyRequest, Scope
from novitai.domain.budgets import BudgetPeriod
from novitai.domain.key_limits import KeyBudget, KeyLimits
from novitai.domain.product import PRICE_UNITS_PER_USD, usd

MOST_INSTANCES: Final = 1_000_000
_BUDGET_TOLD: Final = "Budget must be an object with an amount and a period"
_SCOPES: Final = ", ".join(f"'{scope.value}'" for scope in Scope)


def _listed(value: object) -> object:
    if not isinstance(value, list) or not value:
        raise FieldInvalid(f"Scopes must be a list with at least one of {_SCOPES}")
    return value


def _future(at: int, info: ValidationInfo) -> int:
    if at <= known(info, "now"):
        raise FieldInvalid("Expiry must be in the future")
    if at >= END_OF_TIME:
        raise FieldInvalid("Expiry must be before the year 10000")
    return at


def _of_no_admin(limits: KeyLimitsRequest, info: ValidationInfo) -> KeyLimitsRequest:
    if Scope.ADMIN in info.data.get("scopes", ()) and limits.wanted() is not None:
        raise FieldInvalid("A key with the scope 'admin' cannot have limits: it could lift them")
    return limits


class KeyBudgetRequest(RequestModel):
    """What all instances of the key may cost in a period of UTC."""

    amount: BudgetAmount
    period: SentPeriod


class KeyLimitsRequest(RequestModel):
    """Limits of what the key creates. They never change, and bind its instances for good."""

    max_instances: Annotated[
        int,
        Field(
            ge=1,
            le=MOST_INSTANCES,
            description="How many of its instances may exist at a time; those that failed before "
            "they were bought do not count",
        ),
        Wording("Maximum instances"),
    ] = absent()
    max_hourly_price: Annotated[
        float,
        Field(
            gt=0,
            le=MAX_HOURLY_PRICE,
            description="USD for the whole instance, when it is bought or started",
        ),
        Wording("Maximum hourly price"),
    ] = absent()
    max_run_minutes: Annotated[
        int,
        Field(
            ge=1,
            le=MAX_LIMIT_MINUTES,
            description="After how many minutes each run is stopped, from its first billable "
            "moment",
        ),
        Wording("Maximum run minutes"),
    ] = absent()
    budget: Annotated[
        KeyBudgetRequest,
        Field(description="What all its instances may cost in a period of UTC"),
        Wording("Budget", wrong=_BUDGET_TOLD, missing=_BUDGET_TOLD),
    ] = absent()

    def wanted(self) -> KeyLimits | None:
        """Return them as limits of the domain; amounts are rounded down. None if none is set."""
        given = self.model_fields_set
        budget = self.budget if "budget" in given else None
        price = self.max_hourly_price if "max_hourly_price" in given else None
        return KeyLimits(
            max_instances=self.max_instances,
            max_hourly_price=None if price is None else _units(price),
            max_run_minutes=self.max_run_minutes,
            budget=None if budget is None else KeyBudget(_units(budget.amount), budget.period),
        ).or_none()


def _units(amount: float) -> int:
    return floor(amount * PRICE_UNITS_PER_USD + 1e-6)


class CreateKeyRequest(RequestModel):
    """The API key to create."""

    name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_NAME,
            pattern=NOT_BLANK,
            description="A text that names the key; it is shown with what the key does",
        ),
        Wording("Name"),
    ]
    scopes: Annotated[
        list[Annotated[Scope, Strict(False)]],
        BeforeValidator(_listed),
        Field(min_length=1, description="Its rights; each scope includes those before it"),
        Wording("Scopes", wrong=f"Scopes must be among {_SCOPES}"),
    ]
    expires_at: Annotated[
        SentTime,
        AfterValidator(_future),
        Field(
            description="From when on the key is refused: ISO-8601 with an offset. By default, it "
            "does not expire"
        ),
        Wording("Expiry"),
    ] = absent()
    limits: Annotated[
        KeyLimitsRequest,
        AfterValidator(_of_no_admin),
        Field(description="Limits of what the key creates; not for a key with the scope `admin`"),
        Wording("Limits"),
    ] = absent()

    def wanted(self) -> KeyRequest:
        """Return it as a request of the domain."""
        limits = self.limits.wanted() if "limits" in self.model_fields_set else None
        return KeyRequest(self.name, frozenset(self.scopes), self.expires_at, limits)


class KeyBudgetView(ResponseModel):
    """What all instances of the key may cost in a period."""

    amount: float = Field(description="USD in one period")
    period: BudgetPeriod = Field(description="After which time it begins again, in UTC")


class KeyLimitsView(ResponseModel):
    """The limits of what the key creates."""

    max_instances: int | None = absent("How many of its instances may exist at a time")
    max_hourly_price: float | None = absent(
        "USD per hour for the whole instance, when it is bought or started"
    )
    max_run_minutes: int | None = absent("After how many minutes each run is stopped")
    budget: KeyBudgetView | None = absent("What all its instances may cost in a period")

    @classmethod
    def of(cls, key: ApiKey) -> KeyLimitsView | None:
        """Return the limits of a key; None if it has none."""
        limits = key.limits
        if limits is None:
            return None
        price, budget = limits.max_hourly_price, limits.budget
        return cls(
            max_instances=limits.max_instances,
            max_hourly_price=None if price is None else usd(price),
            max_run_minutes=limits.max_run_minutes,
            budget=None
            if budget is None
            else KeyBudgetView(amount=usd(budget.amount), period=budget.period),
        )


class KeyView(ResponseModel):
    """An API key without its secret text."""

    id: str = Field(description="The key's ID")
    name: str = Field(description="Its name")
    scopes: list[Scope] = Field(description="What it may do")
    created_at: Time = Field(description="When it was created")
    expires_at: Time | None = absent("From when on it is refused; absent if it does not expire")
    revoked_at: Time | None = absent("When it was revoked")
    last_used_at: Time | None = absent("When it was last used, to the minute; absent before that")
    limits: KeyLimitsView | None = absent("The limits of what it creates; absent if it has none")


class CurrentKeyResponse(ResponseModel):
    """The API key of the request."""

    id: str = Field(description="The key's ID")
    name: str = Field(description="Its name")
    scopes: list[Scope] = Field(description="What it may do")
    created_at: Time | None = absent(
        "When it was created; absent for the key of the server's settings"
    )
    expires_at: Time | None = absent("From when on it is refused; absent if it does not expire")
    limits: KeyLimitsView | None = absent("Its limits; absent if it has none")


class CreateKeyResponse(ResponseModel):
    """A new API key, with its secret text."""

    id: str = Field(description="The key's ID")
    name: str = Field(description="Its name")
    scopes: list[Scope] = Field(description="What it may do")
    key: str = Field(description="The key itself, `nvt_...`; no other response shows it")
    created_at: Time = Field(description="When it was created")
    expires_at: Time | None = absent("From when on it is refused; absent if it does not expire")
    limits: KeyLimitsView | None = absent("The limits of what it creates; absent if it has none")


class ListKeysResponse(ListPage):
    """API keys, newest first, including revoked and expired ones."""

    keys: list[KeyView] = Field(description="The keys of this page")

# SPDX-License-Identifier: Apache-2.0
"""Schemas of budgets."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Final, Self
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    WrapValidator,
    model_validator,
)

from novitai.api.schemas.wire import (
    NOT_BLANK,
    VISIBLE,
    FieldInvalid,
    ListPage,
    RequestModel,
    ResponseModel,
    Time,
    Wording,
    absent,
    null_removes,
    removable,
)
from novitai.domain.billing_periods import zone
from novitai.domain.budgets import (
    MAX_ALERTS,
    BudgetAction,
    BudgetPeriod,
    BudgetScope,
    BudgetTerms,
)
from novitai.domain.product import PRICE_UNITS_PER_USD
from novitai.domain.tags import MAX_TAG_VALUE, TAG_NAME

MAX_BUDGET_NAME: Final = 100
LARGEST_AMOUNT: Final = 1_000_000_000.0
SMALLEST_AMOUNT: Final = 0.01
HIGHEST_ALERT: Final = 1_000
_DEFAULTS: Final = BudgetTerms("", 0, BudgetPeriod.TOTAL)
_ZONE_TOLD: Final = "tz must be the IANA name of a time zone, such as Europe/Berlin"
_ALERTS_TOLD: Final = (
    f"alertAt must be a list of at most {MAX_ALERTS} different integers from 1 to {HIGHEST_ALERT}"
)


def _zone(value: str) -> str:
    if zone(value) is None:
        raise FieldInvalid(_ZONE_TOLD)
    return value


def _alerts(value: object) -> object:
    if not isinstance(value, list) or len(value) > MAX_ALERTS:
        raise FieldInvalid(_ALERTS_TOLD)
    numbers = [one for one in value if isinstance(one, int) and not isinstance(one, bool)]
    fits = all(1 <= one <= HIGHEST_ALERT for one in numbers)
    if not fits or len(set(numbers)) != len(value):
        raise FieldInvalid(_ALERTS_TOLD)
    return value


class BudgetTag(RequestModel):
    """A tag that instances have."""

    name: Annotated[
        str,
        Field(pattern=f"^{TAG_NAME}$", description="The name of the tag"),
        Wording("Tag name", pattern="Tag name must be the name of a tag"),
    ]
    value: Annotated[
        str,
        Field(max_length=MAX_TAG_VALUE, pattern=VISIBLE, description="The value of the tag"),
        Wording("Tag value"),
    ]


class BudgetScopeRequest(RequestModel):
    """The instances of a budget: all of them, those of one key, or those with one tag."""

    key_id: Annotated[
        str,
        Field(
            min_length=1, max_length=40, description="The API key that has created the instances"
        ),
        Wording("Key"),
    ] = absent()
    tag: Annotated[
        BudgetTag,
        Field(description="The tag that the instances have"),
        Wording("Tag", wrong="Tag must be an object with a name and a value"),
    ] = absent()

    @model_validator(mode="after")
    def _one_of_them(self) -> Self:
        if len(self.model_fields_set) > 1:
            raise FieldInvalid("Scope must have keyId or tag, not both")
        return self

    def wanted(self) -> BudgetScope:
        """Return it as a scope of the domain."""
        if "tag" in self.model_fields_set:
            return BudgetScope(tag=(self.tag.name, self.tag.value))
        return BudgetScope(key_id=self.key_id)


BudgetName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_BUDGET_NAME,
        pattern=NOT_BLANK,
        description="A text that names the budget",
    ),
    Wording("Name"),
]
BudgetAmount = Annotated[
    float,
    Field(ge=SMALLEST_AMOUNT, le=LARGEST_AMOUNT, description="USD in one period"),
    Wording("Amount"),
]
SentPeriod = Annotated[
    BudgetPeriod,
    Strict(False),
    Field(description="After which time the budget begins again; weeks begin on Monday"),
    Wording("Period", wrong="Period must be 'day', 'week', 'month' or 'total'"),
]
BudgetZone = Annotated[
    str,
    Field(max_length=64, description="The IANA name of the periods' time zone; default: `UTC`"),
    AfterValidator(_zone),
    Wording("tz", wrong=_ZONE_TOLD),
]
SentScope = Annotated[
    BudgetScopeRequest,
    Field(description="The instances; by default, and if it is empty, all"),
    Wording("Scope"),
]
AlertAt = Annotated[
    list[int],
    BeforeValidator(_alerts),
    Field(
        description="The percentages of the amount that are told by `budget.alert`; "
        "default: 50, 80 and 100",
        max_length=MAX_ALERTS,
    ),
    Wording("alertAt", wrong=_ALERTS_TOLD),
]
OnBudgetLimit = Annotated[
    BudgetAction,
    Strict(False),
    Field(
        description="Whether creates, starts and changes of tags that do not fit are refused, and "
        "running instances are stopped once the budget is spent; default: `alert`"
    ),
    Wording("onLimit", wrong="onLimit must be 'alert', 'refuse' or 'stop'"),
]


class CreateBudgetRequest(RequestModel):
    """The budget to create."""

    name: BudgetName
    amount: BudgetAmount
    period: SentPeriod
    tz: BudgetZone = absent()
    scope: SentScope = absent()
    alert_at: AlertAt = absent()
    on_limit: OnBudgetLimit = absent()

    def wanted(self) -> BudgetTerms:
        """Return it as terms of the domain."""
        return _applied(self, BudgetTerms(self.name, _units(self.amount), self.period))


class ChangeBudgetRequest(RequestModel):
    """A merge patch (RFC 7396) in which `scope` and `alertAt` are replaced as a whole.

    `null` restores the default.
    """

    name: BudgetName = absent()
    amount: BudgetAmount = absent()
    period: SentPeriod = absent()
    tz: Annotated[BudgetZone, WrapValidator(null_removes)] = removable()
    scope: Annotated[SentScope, WrapValidator(null_removes)] = removable()
    alert_at: Annotated[AlertAt, WrapValidator(null_removes)] = removable()
    on_limit: Annotated[OnBudgetLimit, WrapValidator(null_removes)] = removable()

    def applied(self, terms: BudgetTerms) -> BudgetTerms:
        """Return the terms after the change."""
        given = self.model_fields_set
        if "name" in given:
            terms = replace(terms, name=self.name)
        if "amount" in given:
            terms = replace(terms, amount=_units(self.amount))
        if "period" in given:
            terms = replace(terms, period=self.period)
        return _applied(self, terms)


def _applied(request: CreateBudgetRequest | ChangeBudgetRequest, terms: BudgetTerms) -> BudgetTerms:
    """Set the fields that have a default, as far as they are given; `None` restores it."""
    given = {name: getattr(request, name) for name in request.model_fields_set}
    if "tz" in given:
        terms = replace(terms, tz=ZoneInfo(given["tz"]) if given["tz"] else _DEFAULTS.tz)
    if "scope" in given:
        scope: BudgetScopeRequest | None = given["scope"]
        terms = replace(terms, scope=_DEFAULTS.scope if scope is None else scope.wanted())
    if "alert_at" in given:
        alerts: list[int] | None = given["alert_at"]
        sent = _DEFAULTS.alert_at if alerts is None else tuple(sorted(alerts))
        terms = replace(terms, alert_at=sent)
    if "on_limit" in given:
        terms = replace(terms, on_limit=given["on_limit"] or _DEFAULTS.on_limit)
    return terms


def _units(amount: float) -> int:
    return round(amount * PRICE_UNITS_PER_USD)


class BudgetTagView(ResponseModel):
    """A tag that instances have."""

    name: str = Field(description="The name of the tag")
    value: str = Field(description="The value of the tag")


class BudgetScopeView(ResponseModel):
    """The instances of a budget; empty: all."""

    key_id: str | None = absent("The API key that created the instances")
    tag: BudgetTagView | None = absent("The tag that the instances have")


class BudgetView(ResponseModel):
    """A budget, and what is spent and reserved of it in the present period."""

    id: str = Field(description="The budget's ID")
    name: str = Field(description="Its name")
    amount: float = Field(description="USD in one period")
    period: BudgetPeriod = Field(description="After which time it begins again; `total` never ends")
    tz: str = Field(description="The IANA name of the time zone in which its periods begin")
    scope: BudgetScopeView = Field(description="The instances that it covers")
    alert_at: list[int] = Field(
        description="The percentages of the amount at which `budget.alert` is sent"
    )
    on_limit: BudgetAction = Field(
        description="Whether it only alerts, refuses what does not fit, or "
        "also stops running instances"
    )
    spent: Annotated[
        float, Field(description="USD that may be billed in this period, GPUs and disks, as of now")
    ]
    reserved: Annotated[
        float, Field(description="USD for the first hours of runs, less what they have spent")
    ]
    remaining: float = Field(description="`amount` less `spent` and `reserved`")
    period_start: Time = Field(description="When the present period began")
    period_end: Annotated[
        Time | None, Field(description="When the present period ends; absent for `total`")
    ] = absent()
    created_at: Time = Field(description="When it was created")
    updated_at: Time = Field(description="When it was last changed")
    key_limit: Annotated[
        bool | None,
        Field(description="`true` if it is a limit of an API key, so that it cannot be changed"),
    ] = absent()


class ListBudgetsResponse(ListPage):
    """Budgets, newest first."""

    budgets: list[BudgetView] = Field(description="The budgets of this page")

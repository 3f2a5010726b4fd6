# SPDX-License-Identifier: Apache-2.0
"""The fields of requests, in snake_case. A field that is left out has the server's default.

In requests that create something, None is the same as leaving the field out. In changes, None
removes the value or restores its default (RFC 7396).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Required, TypedDict

from novitai_client.words import (
    BillingMode,
    BudgetAction,
    BudgetPeriod,
    IdleSignal,
    LimitAction,
    Scope,
    WebhookEventType,
)

Time = datetime | str
"""A time with a time zone, or its ISO-8601 text with an offset."""


class LimitsFields(TypedDict, total=False):
    """When the server stops or deletes the instance on its own.

    Attributes:
        max_spend: USD for the whole life of the instance, GPUs and disk.
        max_run_minutes: The longest run, in minutes from its first billable moment.
        stop_at: When the instance must have stopped.
        on_limit: Whether a limit stops or deletes a running instance; default: `stop`.
        delete_after_stopped_minutes: After how many minutes a stopped instance is deleted, with its
            disk.
    """

    max_spend: float | None
    max_run_minutes: int | None
    stop_at: Time | None
    on_limit: LimitAction | None
    delete_after_stopped_minutes: int | None


class AutoStopFields(TypedDict, total=False):
    """Stop or delete the instance once it has been idle.

    Attributes:
        idle_minutes: How long the instance must be idle.
        signals: The signs of use; default: all.
        gpu_below_percent: GPU use below this counts as idle; default: 5.
        action: Whether the idle instance is stopped or deleted; default: `stop`.
        warn_minutes: How long before the stop a warning is sent; default: 5.
    """

    idle_minutes: int
    signals: Sequence[IdleSignal] | None
    gpu_below_percent: float | None
    action: LimitAction | None
    warn_minutes: int | None


class ProtectedFields(TypedDict):
    """Why the instance must not be deleted."""

    reason: str


class QuoteFields(TypedDict, total=False):
    """The instance to quote.

    Attributes:
        name: 1 to 100 letters, digits, hyphens and underscores.
        product_name: The name or the ID of a product.
        template_id: The ID of a template.
        gpu_num: The number of GPUs, 1 to 8; default: 1.
        rootfs_size: The root filesystem in GB, 20 to 1000; default: 60.
        region: Only this region, or `any` for the cheapest of all. Default: CN-HK-01 first, then
            all others, cheapest first.
        webhook_url: Gets a message at each change of status.
        billing_mode: `onDemand` (default) or `spot`.
        max_hourly_price: USD for the whole instance.
        region_fallback: Whether other regions are tried after `region`.
        envs: Environment variables, merged over those of the template; never shown.
        limits: When the server stops or deletes the instance on its own.
        protected: From its first `running` on, the instance is never deleted.
        auto_stop: Stop or delete the instance once it has been idle.
        tags: Names and values to find and to account for the instance by.
    """

    name: Required[str]
    product_name: Required[str]
    template_id: Required[str]
    gpu_num: int | None
    rootfs_size: int | None
    region: str | None
    webhook_url: str | None
    billing_mode: BillingMode | None
    max_hourly_price: float | None
    region_fallback: bool | None
    envs: Mapping[str, str] | None
    limits: LimitsFields | None
    protected: ProtectedFields | None
    auto_stop: AutoStopFields | None
    tags: Mapping[str, str] | None


class CreateFields(QuoteFields, total=False):
    """The instance to create: the fields of a quote, and `quote_id`.

    Attributes:
        quote_id: A quote for the same request: only its candidates are bought, none above its
            quoted price.
    """

    quote_id: str | None


class ChangeFields(TypedDict, total=False):
    """Changes of an instance. In `tags`, `limits` and `auto_stop`, None removes one entry."""

    auto_stop: AutoStopFields | None
    limits: LimitsFields | None
    protected: ProtectedFields | None
    tags: Mapping[str, str | None] | None
    webhook_url: str | None


class BudgetTagFields(TypedDict):
    """A tag that instances have."""

    name: str
    value: str


class BudgetScopeFields(TypedDict, total=False):
    """The instances of a budget: those of one key, or those with one tag; empty: all."""

    key_id: str
    tag: BudgetTagFields


class BudgetOptions(TypedDict, total=False):
    """The terms of a budget that have a default.

    Attributes:
        tz: The IANA name of the periods' time zone; default: `UTC`.
        scope: The instances; by default, and if it is empty, all.
        alert_at: The percentages of the amount that are told by `budget.alert`; default: 50, 80 and
            100.
        on_limit: The effect on creates and on running instances; default: `alert`.
    """

    tz: str | None
    scope: BudgetScopeFields | None
    alert_at: Sequence[int] | None
    on_limit: BudgetAction | None


class BudgetChangeFields(BudgetOptions, total=False):
    """Changes of a budget; the fields are those of `BudgetFields`."""

    name: str
    amount: float
    period: BudgetPeriod


class BudgetFields(BudgetOptions, total=False):
    """The budget to create.

    Attributes:
        name: The name, for people.
        amount: USD in one period.
        period: After which time the budget begins again; weeks begin on Monday.
    """

    name: Required[str]
    amount: Required[float]
    period: Required[BudgetPeriod]


class KeyBudgetFields(TypedDict):
    """The most that all instances of a key may cost in a period of UTC."""

    amount: float
    period: BudgetPeriod


class KeyLimitsFields(TypedDict, total=False):
    """Limits of what a key creates. They never change."""

    max_instances: int
    max_hourly_price: float
    max_run_minutes: int
    budget: KeyBudgetFields


class KeyFields(TypedDict, total=False):
    """The API key to create."""

    name: Required[str]
    scopes: Required[Sequence[Scope]]
    expires_at: Time | None
    limits: KeyLimitsFields | None


class WebhookOptions(TypedDict, total=False):
    """The fields of a standing webhook that have a default.

    Attributes:
        event_types: The event types to deliver; an empty list means all.
        enabled: Whether events are delivered.
        description: A text for people.
    """

    event_types: Sequence[WebhookEventType] | None
    enabled: bool | None
    description: str | None


class WebhookChangeFields(WebhookOptions, total=False):
    """Changes of a standing webhook."""

    url: str


class WebhookFields(WebhookOptions, total=False):
    """The standing webhook to create; `url` is HTTP or HTTPS and a public address."""

    url: Required[str]

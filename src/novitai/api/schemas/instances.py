# SPDX-License-Identifier: Apache-2.0
"""Schemas of instances: requests, views, lists and verbs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import floor
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    ValidationInfo,
    WithJsonSchema,
    WrapValidator,
)

from novitai.api.schemas.wire import (
    AS_TIME_TOLD,
    LINES,
    NAME_TOLD,
    NOT_BLANK,
    UNSEEN,
    FieldInvalid,
    ListPage,
    Name,
    RequestModel,
    ResponseModel,
    SentTime,
    Time,
    WebhookUrl,
    Wording,
    absent,
    check_text,
    known,
    null_removes,
    removable,
)
from novitai.clock import END_OF_TIME
from novitai.domain.idle import (
    LONGEST_IDLE,
    SHORTEST_IDLE,
    AutoStop,
    AutoStopChange,
    IdleSignal,
)
from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.limits import KEEP_AT_MOST, LimitAction, LimitsChange, LimitSettings
from novitai.domain.product import PRICE_UNITS_PER_USD
from novitai.domain.requests import CreateRequest, InstanceChange
from novitai.domain.tags import MAX_TAG_NAME, MAX_TAG_VALUE, MAX_TAGS, TAG_NAME, is_tag_name
from novitai.urls import masked_input

# Novita's limits on a create call (upstream.md §4).
MAX_ENVS: Final = 100
MAX_ENV_NAME: Final = 511
MAX_ENV_VALUE: Final = 4095
MAX_HOURLY_PRICE: Final = 1_000_000.0
MAX_SPEND: Final = 1_000_000.0
MAX_LIMIT_MINUTES: Final = 525_600
"""A year."""
MAX_PROTECTED_REASON: Final = 200

_ENV_NAME: Final = rf"^[^{UNSEEN}=\s]+$"
_ENVS: Final = {
    "maxProperties": MAX_ENVS,
    "propertyNames": {"minLength": 1, "maxLength": MAX_ENV_NAME, "pattern": _ENV_NAME},
    "additionalProperties": {"type": "string", "maxLength": MAX_ENV_VALUE, "pattern": LINES},
}


def _envs(value: object) -> object:
    """Validate an object of strings; error messages number the entries and never quote them."""
    if not isinstance(value, Mapping):
        raise FieldInvalid("Environment variables must be an object of strings")
    if len(value) > MAX_ENVS:
        raise FieldInvalid(f"There must be at most {MAX_ENVS} environment variables")
    for number, (name, content) in enumerate(value.items(), start=1):
        entry = f"Environment variable number {number}"
        check_text(f"{entry}: its name", name, longest=MAX_ENV_NAME)
        if "=" in name or any(character.isspace() for character in name):
            raise FieldInvalid(f"{entry}: its name must not contain '=' or spaces")
        # Private keys and certificates contain line breaks.
        check_text(f"{entry}: its value", content, shortest=0, longest=MAX_ENV_VALUE, lines=True)
    return value


# Control characters, and those that change the direction of the text after them.
_UNPRINTABLE: Final = UNSEEN + r"\u200e\u200f\u202a-\u202e\u2066-\u2069"
_TAG_VALUE: Final = rf"^[^{_UNPRINTABLE}]{{0,{MAX_TAG_VALUE}}}$"
_NOT_PRINTABLE: Final = re.compile(f"[{_UNPRINTABLE}]")
TAG_FILTER: Final = rf"^{TAG_NAME}:[^{_UNPRINTABLE}]{{0,{MAX_TAG_VALUE}}}$"
"""A tag in a query string: its name, a colon and its value."""
_TAGS: Final = {
    "maxProperties": MAX_TAGS,
    "propertyNames": {"maxLength": MAX_TAG_NAME, "pattern": f"^{TAG_NAME}$"},
    "additionalProperties": {"type": "string", "pattern": _TAG_VALUE},
}
_TAGS_PATCH: Final = {
    "type": "object",
    "propertyNames": _TAGS["propertyNames"],
    "additionalProperties": {"type": ["string", "null"], "pattern": _TAG_VALUE},
}


def _tags(value: object) -> object:
    """Validate tags: an object of texts."""
    if isinstance(value, Mapping) and len(value) > MAX_TAGS:
        raise FieldInvalid(f"There must be at most {MAX_TAGS} tags")
    return _each_tag(value, removable=False)


def _tags_patch(value: object) -> object:
    """Validate a merge patch of tags: `null` removes a tag, or all of them."""
    return None if value is None else _each_tag(value, removable=True)


def _each_tag(value: object, *, removable: bool) -> object:
    if not isinstance(value, Mapping):
        raise FieldInvalid("Tags must be an object of strings")
    for number, (name, content) in enumerate(value.items(), start=1):
        if not is_tag_name(name):
            raise FieldInvalid(
                f"Tag number {number}: its name must be 1 to {MAX_TAG_NAME} characters of a-z, "
                "0-9, '.', '_' and '-', the first one a letter or digit"
            )
        if content is None and removable:
            continue
        check_text(f"Tag '{name}'", content, shortest=0, longest=MAX_TAG_VALUE)
        if _NOT_PRINTABLE.search(content):
            raise FieldInvalid(f"Tag '{name}' must have printable characters only")
    return value


SentTags = Annotated[
    dict[str, str],
    BeforeValidator(_tags),
    Field(
        description="Names and values to find and to account for the instance by",
        json_schema_extra=_TAGS,
    ),
    Wording("Tags"),
]


def _writable(at: int) -> int:
    if not 0 <= at < END_OF_TIME:
        raise FieldInvalid("Last used at must be between the years 1970 and 9999")
    return at


def _in_future(at: int, info: ValidationInfo) -> int:
    if not known(info, "now") < at < END_OF_TIME:
        raise FieldInvalid("Stop at must be in the future")
    return at


MaxSpend = Annotated[
    float,
    Field(
        ge=0.01,
        le=MAX_SPEND,
        description="USD for the whole life of the instance, GPUs and disk",
    ),
    Wording("Maximum spend"),
]
MaxRunMinutes = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_LIMIT_MINUTES,
        description="The longest run, in minutes from its first billable moment",
    ),
    Wording("Maximum run minutes"),
]
StopAt = Annotated[
    SentTime,
    AfterValidator(_in_future),
    Field(description="When the instance must have stopped: ISO-8601 with an offset"),
    Wording("Stop at"),
]
OnLimit = Annotated[
    LimitAction,
    Strict(False),
    Field(description="Whether a limit stops or deletes a running instance; default: `stop`"),
    Wording("On limit", wrong="On limit must be 'stop' or 'delete'"),
]
DeleteAfterStoppedMinutes = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_LIMIT_MINUTES,
        description="After how many minutes a stopped instance is deleted, with its disk",
    ),
    Wording("Delete after stopped minutes"),
]


class LimitsRequest(RequestModel):
    """When novitai stops or deletes the instance on its own."""

    max_spend: MaxSpend = absent()
    max_run_minutes: MaxRunMinutes = absent()
    stop_at: StopAt = absent()
    on_limit: OnLimit = absent()
    delete_after_stopped_minutes: DeleteAfterStoppedMinutes = absent()

    def wanted(self) -> LimitSettings | None:
        """Return the limits; None if none is set."""
        return _limits_change(self).applied(None)


class LimitsPatch(RequestModel):
    """A merge patch of limits: `null` removes a limit, and others are kept."""

    max_spend: Annotated[MaxSpend, WrapValidator(null_removes)] = removable()
    max_run_minutes: Annotated[MaxRunMinutes, WrapValidator(null_removes)] = removable()
    stop_at: Annotated[StopAt, WrapValidator(null_removes)] = removable()
    on_limit: Annotated[OnLimit, WrapValidator(null_removes)] = removable()
    delete_after_stopped_minutes: Annotated[
        DeleteAfterStoppedMinutes, WrapValidator(null_removes)
    ] = removable()

    def wanted(self) -> LimitsChange:
        """Return it as a change of the domain."""
        return _limits_change(self)


def _limits_change(sent: LimitsRequest | LimitsPatch) -> LimitsChange:
    """Return the sent limits as a change of the domain; amounts are rounded down."""
    fields = {name: getattr(sent, name) for name in sent.model_fields_set}
    if fields.get("max_spend") is not None:
        fields["max_spend"] = floor(fields["max_spend"] * PRICE_UNITS_PER_USD + 1e-6)
    return LimitsChange(fields)


class ProtectedRequest(RequestModel):
    """Why the instance must not be deleted."""

    reason: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_PROTECTED_REASON,
            pattern=NOT_BLANK,
            description="The reason, for people",
        ),
        Wording("Reason"),
    ]


IdleMinutes = Annotated[
    int,
    Field(ge=SHORTEST_IDLE, le=LONGEST_IDLE, description="How long the instance must be idle"),
    Wording("Idle minutes"),
]
IdleSignals = Annotated[
    list[Annotated[IdleSignal, Strict(False)]],
    Field(min_length=1, max_length=len(IdleSignal), description="The signs of use; default: all"),
    Wording("Signals", wrong="Signals must be a list of 'lastUsed' and 'gpu'"),
]
GpuBelowPercent = Annotated[
    float,
    Field(gt=0, le=100, description="GPU use below this counts as idle; default: 5"),
    Wording("GPU below percent"),
]
AutoStopAction = Annotated[
    LimitAction,
    Strict(False),
    Field(description="Whether the idle instance is stopped or deleted; default: `stop`"),
    Wording("Action", wrong="Action must be 'stop' or 'delete'"),
]
WarnMinutes = Annotated[
    int,
    Field(
        ge=0,
        le=LONGEST_IDLE,
        description="How long before the stop a warning is sent, at most half of `idleMinutes`; "
        "default: 5",
    ),
    Wording("Warn minutes"),
]


class AutoStopRequest(RequestModel):
    """Stop or delete the instance once it has been idle."""

    idle_minutes: IdleMinutes
    signals: IdleSignals = absent()
    gpu_below_percent: GpuBelowPercent = absent()
    action: AutoStopAction = absent()
    warn_minutes: WarnMinutes = absent()

    def wanted(self) -> AutoStop | None:
        """Return the setting."""
        return _auto_stop_change(self).applied(None)


class AutoStopPatch(RequestModel):
    """A merge patch of auto-stop: `null` restores a default, and others are kept."""

    idle_minutes: IdleMinutes = absent()
    signals: Annotated[IdleSignals, WrapValidator(null_removes)] = removable()
    gpu_below_percent: Annotated[GpuBelowPercent, WrapValidator(null_removes)] = removable()
    action: Annotated[AutoStopAction, WrapValidator(null_removes)] = removable()
    warn_minutes: Annotated[WarnMinutes, WrapValidator(null_removes)] = removable()

    def wanted(self) -> AutoStopChange:
        """Return it as a change of the domain."""
        return _auto_stop_change(self)


def _auto_stop_change(given: AutoStopRequest | AutoStopPatch) -> AutoStopChange:
    """Return the given fields as a change; signals are in their own order, without duplicates."""
    fields = {name: getattr(given, name) for name in given.model_fields_set}
    if fields.get("signals") is not None:
        fields["signals"] = tuple(one for one in IdleSignal if one in fields["signals"])
    return AutoStopChange(fields)


class QuoteRequest(RequestModel):
    """The instance to quote. Unknown fields are rejected: a misspelt field costs money."""

    name: Annotated[
        Name,
        Field(description="The name of the instance; several instances may have the same"),
        Wording("Name", code="INVALID_INSTANCE_NAME", pattern=NAME_TOLD),
    ]
    product_name: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            pattern=NOT_BLANK,
            description="The name of a product of `GET /api/products`",
        ),
        Wording("Product name", code="INVALID_PRODUCT_NAME"),
    ]
    template_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=255,
            pattern=NOT_BLANK,
            description="The ID of a template of `GET /api/templates`",
        ),
        Wording("Template ID", code="INVALID_TEMPLATE_ID"),
    ]
    gpu_num: Annotated[
        int,
        Field(ge=1, le=8, description="The number of GPUs"),
        Wording("GPU number", code="INVALID_GPU_NUM"),
    ] = 1
    rootfs_size: Annotated[
        int,
        Field(ge=20, le=1000, description="The size of the root filesystem in GB"),
        Wording("Root filesystem size", unit=" GB", code="INVALID_ROOTFS_SIZE"),
    ] = 60
    region: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=NOT_BLANK,
            # No `default`: a client that sends it would restrict the request to that region.
            description="Default: CN-HK-01 first, then all others, cheapest first. If a region of "
            "GET /api/regions is sent, even CN-HK-01, only that region is tried, unless "
            "`regionFallback` is true; `any` means the cheapest of all regions.",
        ),
        Wording("Region"),
    ] = absent()
    webhook_url: Annotated[
        WebhookUrl,
        Field(description="HTTP or HTTPS; gets a message at each change of status"),
        Wording("Webhook URL", code="INVALID_WEBHOOK_URL", mask=masked_input),
    ] = absent()
    billing_mode: Annotated[
        BillingMode,
        Strict(False),
        Field(description="Whether to buy on demand or as spot, which Novita may reclaim"),
        Wording("Billing mode", wrong="Billing mode must be 'onDemand' or 'spot'"),
    ] = BillingMode.ON_DEMAND
    max_hourly_price: Annotated[
        float,
        Field(
            gt=0,
            le=MAX_HOURLY_PRICE,
            description="USD per hour for the whole instance; offers that cost more are not bought",
        ),
        Wording("Maximum hourly price"),
    ] = absent()
    region_fallback: Annotated[
        bool,
        Field(description="Whether other regions are tried after `region`"),
        Wording("Region fallback"),
    ] = False
    envs: Annotated[
        dict[str, str],
        BeforeValidator(_envs),
        Field(
            description="Environment variables, which replace the template's; never shown",
            json_schema_extra=_ENVS,
        ),
        Wording("Environment variables", secret=True),
    ] = Field(default_factory=dict)
    limits: Annotated[
        LimitsRequest,
        Field(description="When novitai stops or deletes the instance on its own"),
        Wording("Limits"),
    ] = absent()
    protected: Annotated[
        ProtectedRequest,
        Field(description="From its first `running` on, the instance is never deleted"),
        Wording("Protected"),
    ] = absent()
    auto_stop: Annotated[
        AutoStopRequest,
        Field(description="Stop or delete the instance once it has been idle"),
        Wording("Auto-stop"),
    ] = absent()
    tags: SentTags = Field(default_factory=dict)

    def wanted(self) -> CreateRequest:
        """Return it as a request of the domain."""
        fields = dict(self)
        limits, protected = fields.pop("limits"), fields.pop("protected")
        auto_stop = fields.pop("auto_stop")
        return CreateRequest(
            **fields,
            auto_stop=auto_stop.wanted() if auto_stop else None,
            limits=limits.wanted() if limits else None,
            protected_reason=protected.reason if protected else None,
        )


class CreateInstanceRequest(QuoteRequest):
    """The instance to create. Unknown fields are rejected: a misspelt field costs money."""

    quote_id: Annotated[
        str,
        Field(
            min_length=1,
            max_length=40,
            pattern=NOT_BLANK,
            description="A quote of `POST /api/quotes` for the same request: only its candidates "
            "are bought, none above its quoted price",
        ),
        Wording("Quote ID"),
    ] = absent()


class ChangeInstanceRequest(RequestModel):
    """A merge patch (RFC 7396) of an instance: absent fields keep their values.

    `null` removes a tag, all tags, a limit, all limits, auto-stop, the protection, or the webhook
    URL.
    """

    auto_stop: Annotated[
        AutoStopPatch,
        WrapValidator(null_removes),
        Field(description="Fields to set; one that is `null` gets its default, others are kept"),
        Wording("Auto-stop"),
    ] = removable()
    limits: Annotated[
        LimitsPatch,
        WrapValidator(null_removes),
        Field(description="Limits to set; one that is `null` is removed, and others are kept"),
        Wording("Limits"),
    ] = removable()
    protected: Annotated[
        ProtectedRequest,
        WrapValidator(null_removes),
        Field(description="Why the instance must not be deleted"),
        Wording("Protected"),
    ] = removable()

    tags: Annotated[
        dict[str, str | None] | None,
        BeforeValidator(_tags_patch),
        WithJsonSchema(_TAGS_PATCH),
        Field(description="Tags to set; a tag that is `null` is removed, and others are kept"),
        Wording("Tags"),
    ] = removable()
    webhook_url: Annotated[
        WebhookUrl,
        WrapValidator(null_removes),
        Field(description="Gets the messages of the following changes of status"),
        Wording("Webhook URL", code="INVALID_WEBHOOK_URL", mask=masked_input),
    ] = removable()

    def wanted(self) -> InstanceChange:
        """Return it as a change of the domain."""
        fields = dict(self)
        limits, protected = fields.pop("limits"), fields.pop("protected")
        auto_stop = fields.pop("auto_stop")
        return InstanceChange(
            frozenset(self.model_fields_set),
            **fields,
            auto_stop=auto_stop.wanted() if auto_stop else None,
            limits=limits.wanted() if limits else None,
            protected=protected.reason if protected else None,
        )


class CreateInstanceResponse(ResponseModel):
    """An accepted request. The instance is bought after this response."""

    instance_id: str = Field(description="The new instance's ID")
    status: Literal["creating"] = Field(description="Always `creating`")
    message: Literal["Instance creation initiated successfully"] = Field(
        description="The result in one sentence"
    )
    estimated_ready_time: Time = Field(description="When it will probably serve")


class ListInstancesResponse(ListPage):
    """Instances, newest first."""

    instances: list[InstanceDetails] = Field(description="The instances of this page")
    total: int = Field(description="The number of matching instances on all pages")


class InstanceNameRequest(RequestModel):
    """The name of an instance; exactly one live instance must have it."""

    instance_name: Annotated[
        Name,
        Field(description="The name of a live instance"),
        Wording(
            "Name",
            missing="Instance name is required",
            code="INVALID_INSTANCE_NAME",
            pattern=NAME_TOLD,
        ),
    ]


class LastUsedRequest(RequestModel):
    """When the instance was last used."""

    last_used_at: Annotated[
        SentTime,
        AfterValidator(_writable),
        Field(description="When it was used: ISO-8601 with an offset; now if it is absent"),
        Wording("Last used at", wrong=f"Last used at {AS_TIME_TOLD}"),
    ] = absent()


class KeepRequest(RequestModel):
    """By how long to put off the stop."""

    minutes: Annotated[
        int,
        Field(
            ge=1,
            le=KEEP_AT_MOST,
            description="By how many minutes to put the stop off; at most 7 days in a run",
        ),
        Wording("Minutes"),
    ]


class VerbResponse(ResponseModel):
    """An accepted verb; poll `/api/operations/{operationId}` for its progress."""

    instance_id: str = Field(description="The instance's ID")
    status: InstanceStatus = Field(description="Its status now")
    operation_id: str = Field(description="The operation that carries the verb out")
    message: str = Field(description="The result in one sentence")


class StopBegun(ResponseModel):
    """An instance that is being stopped."""

    instance_id: str = Field(description="The instance's ID")
    operation_id: str = Field(description="The operation that stops it")


class LeftAlone(ResponseModel):
    """An instance that is not being stopped, and why."""

    instance_id: str = Field(description="The instance's ID")
    reason: str = Field(description="An error code, or `ALREADY_STOPPED`")


class StopAllResponse(ResponseModel):
    """The result for each live instance."""

    operations: list[StopBegun] = Field(description="The instances that are being stopped")
    skipped: list[LeftAlone] = Field(description="The instances that are not being stopped")


class SyncResponse(ResponseModel):
    """An accepted listing of the account."""

    operation_id: str = Field(description="The operation that lists the account")


class SecretEndpoint(ResponseModel):
    """A published port whose endpoint, as Novita reports it, has user info or a query."""

    port: int = Field(description="The port's number")
    endpoint: str = Field(description="The whole endpoint")


class CredentialsResponse(ResponseModel):
    """The passwords of an instance as Novita last reported them; others are absent."""

    instance_id: str = Field(description="The instance's ID")
    ssh_password: str | None = absent("The password of SSH")
    web_terminal_username: str | None = absent("The user name of the web terminal")
    web_terminal_password: str | None = absent("The password of the web terminal")
    jupyter: str | None = absent(
        "The whole URL of Jupyter, if it has user info or a query such as `?token=`"
    )
    web_terminal: str | None = absent(
        "The whole URL of the web terminal, if it has user info or a query"
    )
    endpoints: list[SecretEndpoint] | None = absent(
        "The published ports whose endpoints have user info or a query"
    )

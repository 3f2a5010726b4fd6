# SPDX-License-Identifier: Apache-2.0
"""The fields of an instance's view, declared once: what is rendered, documented and validated.

`novitai.domain.view` renders it. Fields that are unknown or do not apply are absent: None here
means absent, and the API never shows `null`.
"""

from __future__ import annotations

from typing import Annotated, Literal, Required

from pydantic import ConfigDict, Field, with_config
from typing_extensions import TypedDict

from novitai.domain.idle import AutoStopState, IdleSignal
from novitai.domain.instance import BillingMode, InstanceStatus, Origin
from novitai.domain.limits import LimitAction, StopReason
from novitai.domain.operation import OperationKind

CLOSED = ConfigDict(extra="forbid")
"""An object without undeclared fields."""

IsoTime = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
"""A time as ISO-8601, in UTC."""


@with_config(CLOSED)
class PortMappingView(TypedDict):
    """A port that Novita publishes."""

    port: Annotated[int, Field(description="The port's number in the instance")]
    endpoint: Annotated[str, Field(description="Where it is reached, without user info and query")]
    type: Annotated[str, Field(description="`http` or `tcp`")]


@with_config(CLOSED)
class ConnectionDetails(TypedDict, total=False):
    """How to reach the instance."""

    ssh: Annotated[str | None, Field(description="The endpoint of SSH, without its password")]
    jupyter: Annotated[
        str | None, Field(description="The URL of Jupyter, without user info and query")
    ]
    webTerminal: Annotated[
        str | None, Field(description="The URL of the web terminal, without user info and query")
    ]


@with_config(CLOSED)
class CreatedBy(TypedDict):
    """The API key that created an instance, and the name it had."""

    keyId: Annotated[str, Field(description="The ID of the API key")]
    name: Annotated[str, Field(description="The name that the API key had")]


@with_config(CLOSED)
class RunningOperation(TypedDict):
    """The operation that is running on the instance."""

    id: Annotated[str, Field(description="The operation's ID")]
    kind: Annotated[OperationKind, Field(description="What it does")]
    phase: Annotated[str, Field(description="The step at which it is")]


@with_config(CLOSED)
class InstanceErrorView(TypedDict):
    """Why the instance failed, its last start or stop was refused, or it was reclaimed."""

    code: Annotated[str, Field(description="The error code")]
    message: Annotated[str, Field(description="What went wrong")]
    at: Annotated[IsoTime, Field(description="When it went wrong")]


@with_config(CLOSED)
class LimitsView(TypedDict, total=False):
    """The limits of an instance."""

    maxSpend: Annotated[
        float | None, Field(description="USD for the whole life of the instance, GPUs and disk")
    ]
    maxRunMinutes: Annotated[
        int | None, Field(description="The longest run, in minutes from its first billable moment")
    ]
    stopAt: Annotated[IsoTime | None, Field(description="When the instance must have stopped")]
    onLimit: Required[
        Annotated[
            LimitAction, Field(description="Whether a limit stops or deletes a running instance")
        ]
    ]
    deleteAfterStoppedMinutes: Annotated[
        int | None,
        Field(description="After how many minutes a stopped instance is deleted, with its disk"),
    ]


@with_config(CLOSED)
class AutoStopView(TypedDict, total=False):
    """The auto-stop setting of an instance, and its state."""

    idleMinutes: Required[Annotated[int, Field(description="How long the instance must be idle")]]
    signals: Required[
        Annotated[list[IdleSignal], Field(description="The signs of use that are watched")]
    ]
    gpuBelowPercent: Required[
        Annotated[float, Field(description="GPU use below this counts as idle")]
    ]
    action: Required[
        Annotated[LimitAction, Field(description="Whether the idle instance is stopped or deleted")]
    ]
    warnMinutes: Required[
        Annotated[int, Field(description="How long before the stop a warning is sent")]
    ]
    state: Required[
        Annotated[
            AutoStopState,
            Field(
                description="Whether it is stopped later, soon, or not at all because GPU "
                "use is not known"
            ),
        ]
    ]
    stopsAt: Annotated[
        IsoTime | None, Field(description="When it acts if the instance is not used until then")
    ]


@with_config(CLOSED)
class ProtectedView(TypedDict):
    """Why the instance must not be deleted."""

    reason: Annotated[str, Field(description="The reason, as it was given")]


@with_config(CLOSED)
class CostView(TypedDict, total=False):
    """The costs of an instance, GPUs and disk, as of `asOf`. The bill lies between the bounds.

    `hourlyPrice`, `accrued` and `accruedAtMost` are absent if a price is unknown.
    """

    currency: Required[Annotated[Literal["USD"], Field(description="The currency of all amounts")]]
    hourlyPrice: Annotated[
        float | None, Field(description="USD per hour for the whole instance while it runs")
    ]
    accrued: Annotated[
        float | None, Field(description="USD that are certainly billed, rounded down")
    ]
    accruedAtMost: Annotated[float | None, Field(description="USD that may be billed, rounded up")]
    asOf: Required[
        Annotated[
            IsoTime,
            Field(
                description="When the last listing that showed the instance began; the amounts are "
                "those up to then"
            ),
        ]
    ]
    costSince: Annotated[
        IsoTime | None, Field(description="When the instance was adopted; costs count from then")
    ]
    unknown: Annotated[bool | None, Field(description="Whether a price is unknown")]


@with_config(CLOSED)
class InstanceDetails(TypedDict, total=False):
    """An instance. Fields that are unknown or do not apply are absent."""

    id: Required[Annotated[str, Field(description="The instance's ID")]]
    name: Required[
        Annotated[str, Field(description="Its name; several instances may have the same")]
    ]
    status: Required[Annotated[InstanceStatus, Field(description="Its status")]]
    gpuNum: Required[Annotated[int, Field(description="The number of its GPUs")]]
    region: Required[
        Annotated[
            str,
            Field(
                description="Its region; before it is bought, the one that was asked for or "
                "is tried first"
            ),
        ]
    ]
    portMappings: Required[
        Annotated[list[PortMappingView], Field(description="The ports that Novita publishes")]
    ]
    connectionDetails: Annotated[
        ConnectionDetails | None,
        Field(description="How to reach it; absent before Novita tells it"),
    ]
    createdAt: Required[Annotated[IsoTime, Field(description="When the request was accepted")]]
    readyAt: Annotated[
        IsoTime | None, Field(description="Since when it serves; absent unless it is `running`")
    ]
    productName: Required[Annotated[str, Field(description="The product that was asked for")]]
    productId: Annotated[
        str | None, Field(description="The ID at Novita of the product that was bought")
    ]
    templateId: Annotated[
        str | None, Field(description="Absent for an adopted instance if it is not known")
    ]
    rootfsSize: Annotated[
        int | None, Field(description="GB; absent for an adopted instance if it is not known")
    ]
    billingMode: Required[
        Annotated[BillingMode, Field(description="Whether it is billed on demand or as spot")]
    ]
    hourlyPrice: Annotated[
        float | None,
        Field(
            description="USD for the whole instance: what Novita charges now or, if Novita "
            "does not say, the price at which it was bought"
        ),
    ]
    tags: Required[Annotated[dict[str, str], Field(description="Its tags")]]
    createdBy: Annotated[CreatedBy | None, Field(description="Absent for adopted instances")]
    webhookUrl: Annotated[
        str | None,
        Field(description="Where messages about it are sent, without user name and password"),
    ]
    startedAt: Annotated[IsoTime | None, Field(description="When it last became `running`")]
    stoppedAt: Annotated[IsoTime | None, Field(description="When it last became `stopped`")]
    lastUsedAt: Annotated[IsoTime | None, Field(description="When its use was last recorded")]
    spotReclaimAt: Annotated[
        IsoTime | None,
        Field(description="When Novita reclaims or reclaimed this spot instance, once announced"),
    ]
    upstreamId: Annotated[
        str | None, Field(description="Its ID at Novita; absent before it is bought")
    ]
    upstreamStatus: Annotated[
        str | None, Field(description="Its status in Novita's words, as last listed")
    ]
    origin: Annotated[
        Literal[Origin.ADOPTED] | None, Field(description="Only for an adopted instance")
    ]
    limits: Annotated[
        LimitsView | None, Field(description="When novitai stops or deletes it on its own")
    ]
    autoStop: Annotated[
        AutoStopView | None, Field(description="Whether it is stopped once it is idle")
    ]
    protected: Annotated[ProtectedView | None, Field(description="Why it must not be deleted")]
    stopsAt: Annotated[
        IsoTime | None,
        Field(description="When a limit stops the instance, or deletes a stopped one"),
    ]
    stopReason: Annotated[
        StopReason | None,
        Field(description="The limit of `stopsAt`, or the one that stopped the instance"),
    ]
    unenforced: Annotated[
        bool | None, Field(description="True while a limit is due and has no effect")
    ]
    operation: Annotated[
        RunningOperation | None, Field(description="The operation that is running on it")
    ]
    error: Annotated[
        InstanceErrorView | None,
        Field(description="Why it failed, its last start or stop was refused, or it was reclaimed"),
    ]
    observedAt: Annotated[IsoTime | None, Field(description="When Novita last showed it")]
    cost: Annotated[CostView | None, Field(description="What it costs")]

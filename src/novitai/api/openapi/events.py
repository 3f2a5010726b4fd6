# SPDX-License-Identifier: Apache-2.0
"""The table of event types: when each is written, and the facts in its data.

The webhooks of the OpenAPI document are made from it, and tests compare `docs/reference/events.md`
and the events that other tests cause with it. It is imported only when the document is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, Required, TypeVar

from pydantic import Field
from typing_extensions import TypedDict

from novitai.domain.account import HoldReason
from novitai.domain.budgets import BudgetAction, BudgetPeriod
from novitai.domain.event import EventType
from novitai.domain.idle import IdleSignal
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import IsoTime
from novitai.domain.limits import LimitAction, StopReason
from novitai.domain.operation import OperationKind
from novitai.domain.reconciliation import BillState
from novitai.domain.webhook import OffReason
from novitai.lifecycle.operations.failure_policy import Cleanup

T = TypeVar("T")

_AT: Final = "2023-10-20T10:30:00.000Z"
_UPSTREAM_ID: Final = "3560b7fec915bbf9"
_BUDGET: Final = {
    "budgetId": "bud_5j8l0q2w4e6r8t1y3u5i",
    "name": "Vision team",
    "amount": 500.0,
    "spent": 400.25,
    "onLimit": "refuse",
    "period": "month",
    "periodStart": "2023-10-01T00:00:00.000Z",
    "periodEnd": "2023-11-01T00:00:00.000Z",
}


Drift = TypedDict(
    "Drift",
    {
        "from": Annotated[
            str, Field(description="Novita's word for its earlier status, or `gone`")
        ],
        "to": Required[Annotated[str, Field(description="Novita's word for its status now")]],
        "cause": Annotated[
            Literal["late_call"],
            Field(description="`late_call` if a call that was sent too late made the change"),
        ],
    },
    total=False,
)
Drift.__doc__ = "A change at Novita that no call of novitai made."


class RefusedAttempt(TypedDict):
    """A create call that Novita refused."""

    productId: Annotated[str, Field(description="The product's ID at Novita")]
    region: Annotated[str, Field(description="The region of the offer")]
    reason: Annotated[str, Field(description="Why, for programs")]
    message: Annotated[str, Field(description="Why, for people")]


class CancelledOperation(TypedDict):
    """An operation that was cancelled."""

    id: Annotated[str, Field(description="The operation's ID")]
    kind: Annotated[OperationKind, Field(description="What it did")]


class MissingInstanceNotice(TypedDict):
    """A record whose instance is missing from the account."""

    instanceId: Annotated[str, Field(description="The ID of the record")]
    name: Annotated[str, Field(description="The name of the record")]
    upstreamId: Annotated[str | None, Field(description="The ID at Novita, if it had one")]


class StatusFacts(TypedDict, total=False):
    """A change of the status."""

    previousStatus: Annotated[InstanceStatus, Field(description="The status before the event")]
    drift: Annotated[Drift, Field(description="The change at Novita, if novitai has not caused it")]


class FailureFacts(StatusFacts, total=False):
    """A failure."""

    cleanup: Annotated[
        Cleanup,
        Field(
            description="The clean-up that follows, if an operation failed; `none` if nothing was "
            "bought"
        ),
    ]


class ReclaimFacts(TypedDict):
    """An announced reclaim."""

    previousStatus: Annotated[InstanceStatus, Field(description="The status before the event")]
    reclaimAt: Annotated[IsoTime, Field(description="When Novita reclaims the instance")]


class PriceFacts(TypedDict):
    """A change of the price."""

    previousHourlyPrice: Annotated[float, Field(description="USD per hour before the event")]


class DriftFacts(TypedDict, total=False):
    """A change at Novita."""

    drift: Required[Annotated[Drift, Field(description="The change at Novita")]]
    correction: Annotated[
        OperationKind, Field(description="The verb that undoes the effect of a late call")
    ]


class CleanedUpFacts(TypedDict):
    """The end of a clean-up."""

    cleanup: Annotated[
        Literal["stopped", "deleted", "none"], Field(description="What was done in the end")
    ]


class SurplusFacts(TypedDict):
    """A second instance of a record."""

    surplusUpstreamId: Annotated[str, Field(description="The ID at Novita of the deleted instance")]


class AttemptFacts(TypedDict):
    """A refused create call."""

    attempt: Annotated[RefusedAttempt, Field(description="The refused create call")]


class RefusalFacts(TypedDict):
    """A refused start or stop."""

    reason: Annotated[str, Field(description="Why, for programs")]
    message: Annotated[str, Field(description="Why, for people")]


class CancelFacts(TypedDict):
    """A cancelled operation."""

    cancelled: Annotated[CancelledOperation, Field(description="The cancelled operation")]


class ReappearanceFacts(TypedDict):
    """The return of an instance."""

    previousStatus: Annotated[InstanceStatus, Field(description="The status before the return")]


class NearFacts(TypedDict):
    """A limit that is near."""

    reason: Annotated[StopReason, Field(description="The limit")]
    at: Annotated[IsoTime, Field(description="When it is due")]


class ReachedFacts(NearFacts):
    """A limit that is due."""

    action: Annotated[LimitAction, Field(description="The verb that was begun")]


class UnenforcedFacts(TypedDict, total=False):
    """A limit without effect."""

    reason: Required[Annotated[StopReason, Field(description="The limit")]]
    at: Annotated[IsoTime, Field(description="When it was due; absent if the price is unknown")]
    cause: Required[
        Annotated[
            Literal[
                "accountHeld",
                "cannotBeStopped",
                "notObserved",
                "notStopped",
                "priceUnknown",
                "protected",
                "refused",
            ],
            Field(description="Why it has no effect"),
        ]
    ]


class WarningFacts(TypedDict):
    """A stop of an idle instance that is near."""

    at: Annotated[IsoTime, Field(description="When it is stopped if it is not used until then")]
    idleSince: Annotated[IsoTime, Field(description="Since when it is idle")]
    action: Annotated[LimitAction, Field(description="Whether it is stopped or deleted")]


class LostSignalFacts(TypedDict):
    """A signal that is not known."""

    signal: Annotated[Literal[IdleSignal.GPU], Field(description="The signal")]
    missingSince: Annotated[IsoTime, Field(description="Since when it is not known")]


class KeptFacts(TypedDict, total=False):
    """A stop that was put off."""

    minutes: Required[Annotated[int, Field(description="By how many minutes")]]
    stopsAt: Annotated[IsoTime, Field(description="When a limit stops the instance now")]


class PurgeFacts(TypedDict):
    """A disk that Novita will delete."""

    purgeAt: Annotated[IsoTime, Field(description="When Novita deletes the disk")]


class UpdateFacts(TypedDict):
    """A change by `PATCH`."""

    changed: Annotated[list[str], Field(description="The changed fields, such as `tags`")]


class SwitchedOffFacts(TypedDict):
    """A webhook that was switched off."""

    webhookId: Annotated[str, Field(description="The webhook's ID")]
    url: Annotated[str, Field(description="Its URL, without user name and password")]
    reason: Annotated[OffReason, Field(description="Why it was switched off")]


class AccountChange(TypedDict, total=False):
    """The account is held, or the hold ended."""

    held: Required[Annotated[bool, Field(description="Whether write calls to Novita are held")]]
    reason: Annotated[HoldReason, Field(description="Why; absent at the end of a hold")]
    message: Required[Annotated[str, Field(description="What was found, and what to do")]]
    missing: Annotated[
        list[MissingInstanceNotice],
        Field(description="Records whose instances are missing; at most 100 of them"),
    ]
    missingCount: Annotated[
        int, Field(description="The number of all records whose instances are missing")
    ]
    missingDigest: Annotated[
        str, Field(description="Names this set of missing instances in `POST /api/account/confirm`")
    ]


class Orphan(TypedDict, total=False):
    """An instance at Novita that has this installation's marker and no record."""

    upstreamId: Required[Annotated[str, Field(description="Its ID at Novita")]]
    name: Required[Annotated[str, Field(description="Its name at Novita")]]
    upstreamStatus: Required[Annotated[str, Field(description="Its status in Novita's words")]]
    createdAt: Annotated[IsoTime, Field(description="When Novita created it")]


class SpentBudget(TypedDict, total=False):
    """A budget, and what is spent of it."""

    budgetId: Required[Annotated[str, Field(description="The budget's ID")]]
    name: Required[Annotated[str, Field(description="Its name")]]
    amount: Required[Annotated[float, Field(description="USD in one period")]]
    spent: Required[Annotated[float, Field(description="USD that may be billed in this period")]]
    onLimit: Required[Annotated[BudgetAction, Field(description="Its effect once it is spent")]]
    period: Required[Annotated[BudgetPeriod, Field(description="The length of its periods")]]
    periodStart: Required[Annotated[IsoTime, Field(description="When the period began")]]
    periodEnd: Annotated[IsoTime, Field(description="When the period ends; absent for `total`")]


class BudgetAlert(SpentBudget):
    """A budget of which a threshold is spent."""

    threshold: Annotated[int, Field(description="The spent percentage of `alertAt`")]


class UnexplainedCost(TypedDict, total=False):
    """A bill above or below the bounds of the ledger."""

    upstreamId: Required[Annotated[str, Field(description="The ID that Novita has billed")]]
    name: Annotated[str, Field(description="The name of the record that pays it")]
    day: Required[Annotated[str, Field(description="A UTC day of Novita's clock")]]
    state: Required[
        Annotated[
            Literal[BillState.OVER, BillState.UNDER],
            Field(description="Whether the bill is above or below the bounds"),
        ]
    ]
    ours: Required[Annotated[float, Field(description="USD that are certainly billed")]]
    oursAtMost: Annotated[
        float, Field(description="USD that may be billed; absent if a price is unknown")
    ]
    billed: Required[Annotated[float, Field(description="USD that Novita has billed")]]
    difference: Required[
        Annotated[
            float, Field(description="USD billed above `oursAtMost`, or, negative, below `ours`")
        ]
    ]


class UnknownCost(TypedDict):
    """A bill for something that no record pays and no listing has shown."""

    upstreamId: Annotated[str, Field(description="The ID that Novita has billed")]
    day: Annotated[str, Field(description="A UTC day of Novita's clock")]
    billed: Annotated[float, Field(description="USD that Novita has billed")]


class UselessBills(TypedDict):
    """Bills of which none is of an instance of this installation."""

    day: Annotated[str, Field(description="The last UTC day that was compared")]
    unknownOwners: Annotated[int, Field(description="The number of billed IDs without an owner")]
    notBilled: Annotated[
        int, Field(description="How many instances have no bill though one should have appeared")
    ]
    message: Annotated[str, Field(description="What may be wrong, and what to check")]


@dataclass(frozen=True, slots=True)
class EventInfo:
    """An event type.

    Attributes:
        written: When it is written, one or two sentences.
        facts: The facts that its data has beside the instance; None for no facts.
        data: For an event about the account: its data, which has no instance.
        example: Facts or data, as an example.
    """

    written: str
    facts: type[Mapping[str, Any]] | None = None
    data: type[Mapping[str, Any]] | None = None
    example: Mapping[str, Any] = field(default_factory=dict)


def _from(status: InstanceStatus) -> dict[str, Any]:
    return {"previousStatus": status.value}


_LIMIT: Final = {"reason": "maxRunMinutes", "at": _AT}
_IDLE: Final = {"reason": "autoStop", "at": _AT}

EVENTS: Final[Mapping[EventType, EventInfo]] = {
    EventType.CREATED: EventInfo(
        "A request was accepted, or the status became `creating`.", StatusFacts
    ),
    EventType.STARTING: EventInfo(
        "The status became `starting`.", StatusFacts, example=_from(InstanceStatus.CREATING)
    ),
    EventType.RUNNING: EventInfo(
        "The status became `running`: Novita says so and every port answers.",
        StatusFacts,
        example=_from(InstanceStatus.STARTING),
    ),
    EventType.STOPPING: EventInfo(
        "The status became `stopping`.", StatusFacts, example=_from(InstanceStatus.RUNNING)
    ),
    EventType.STOPPED: EventInfo(
        "The status became `stopped`.", StatusFacts, example=_from(InstanceStatus.STOPPING)
    ),
    EventType.FAILED: EventInfo(
        "The status became `failed`; `error` says why.",
        FailureFacts,
        example={**_from(InstanceStatus.STARTING), "cleanup": "delete"},
    ),
    EventType.MIGRATING: EventInfo(
        "Novita moves the instance.", StatusFacts, example=_from(InstanceStatus.RUNNING)
    ),
    EventType.SPOT_RECLAIM_SCHEDULED: EventInfo(
        "Novita announced the reclaim of a spot instance.",
        ReclaimFacts,
        example={**_from(InstanceStatus.RUNNING), "reclaimAt": _AT},
    ),
    EventType.TERMINATING: EventInfo(
        "A deletion began.", StatusFacts, example=_from(InstanceStatus.RUNNING)
    ),
    EventType.TERMINATED: EventInfo(
        "The instance is gone.", StatusFacts, example=_from(InstanceStatus.TERMINATING)
    ),
    EventType.PRICE_CHANGED: EventInfo(
        "Novita changed the price of a running instance.",
        PriceFacts,
        example={"previousHourlyPrice": 0.6},
    ),
    EventType.DRIFT: EventInfo(
        "The instance changed at Novita without a call of novitai, or a late call changed it.",
        DriftFacts,
        example={"drift": {"from": "running", "to": "exited"}},
    ),
    EventType.CLEANED_UP: EventInfo(
        "The clean-up of a failed instance ended.",
        CleanedUpFacts,
        example={"cleanup": "deleted"},
    ),
    EventType.SURPLUS_DELETED: EventInfo(
        "A second instance of the same record was deleted.",
        SurplusFacts,
        example={"surplusUpstreamId": _UPSTREAM_ID},
    ),
    EventType.ATTEMPT_REFUSED: EventInfo(
        "Novita refused a create call; the next offer follows.",
        AttemptFacts,
        example={
            "attempt": {
                "productId": "gpu-basic.8c32g",
                "region": "US-WEST-01",
                "reason": "INSUFFICIENT_RESOURCE",
                "message": "insufficient resource",
            }
        },
    ),
    EventType.START_REFUSED: EventInfo(
        "Novita refused a start; the status goes back.",
        RefusalFacts,
        example={"reason": "NO_CAPACITY", "message": "Novita has no stock for this start"},
    ),
    EventType.STOP_REFUSED: EventInfo(
        "Novita refused a stop; the status goes back.",
        RefusalFacts,
        example={"reason": "UPSTREAM_REFUSED", "message": "Novita refused the stop"},
    ),
    EventType.OPERATION_CANCELLED: EventInfo(
        "An operation was cancelled or replaced by a delete.",
        CancelFacts,
        example={"cancelled": {"id": "op_3f9k2m5x8q1w7e4r6t0y", "kind": "create"}},
    ),
    EventType.IDENTITY_UNCONFIRMED: EventInfo(
        "After 10 minutes it is not known whether the upstream instance belongs to the record."
    ),
    EventType.REAPPEARED: EventInfo(
        "The instance of a record that ended by absence was listed again.",
        ReappearanceFacts,
        example=_from(InstanceStatus.TERMINATED),
    ),
    EventType.DELETE_INEFFECTIVE: EventInfo("A deleted instance reappeared after three deletions."),
    EventType.LIMIT_NEAR: EventInfo(
        "A limit stops the instance soon: 80 % of `maxSpend` or `maxRunMinutes` (also that of the "
        "key), or 10 minutes before `stopAt` or auto-stop. Once for each limit in a run.",
        NearFacts,
        example=_LIMIT,
    ),
    EventType.LIMIT_REACHED: EventInfo(
        "A limit is due, and its stop or deletion was begun.",
        ReachedFacts,
        example={**_LIMIT, "action": "stop"},
    ),
    EventType.LIMIT_UNENFORCED: EventInfo(
        "A limit is due and has had no effect for 30 seconds; again every 15 minutes.",
        UnenforcedFacts,
        example={**_LIMIT, "cause": "notStopped"},
    ),
    EventType.AUTOSTOP_WARNING: EventInfo(
        "The idle instance is stopped soon: `warnMinutes` before it. Once for each stop that is "
        "planned.",
        WarningFacts,
        example={"at": _AT, "idleSince": "2023-10-20T10:00:00.000Z", "action": "stop"},
    ),
    EventType.AUTOSTOP_FIRED: EventInfo(
        "The instance was idle for `idleMinutes`, and its stop or deletion was begun.",
        ReachedFacts,
        example={**_IDLE, "action": "stop"},
    ),
    EventType.AUTOSTOP_FAILED: EventInfo(
        "That stop or deletion has had no effect for 30 seconds; again every 15 minutes.",
        UnenforcedFacts,
        example={**_IDLE, "cause": "notStopped"},
    ),
    EventType.AUTOSTOP_SIGNAL_LOST: EventInfo(
        "GPU use has not been known for 30 minutes, so the instance is not stopped; again every "
        "day.",
        LostSignalFacts,
        example={"signal": "gpu", "missingSince": "2023-10-20T10:00:00.000Z"},
    ),
    EventType.KEPT: EventInfo(
        "The stop of the run was put off.", KeptFacts, example={"minutes": 60, "stopsAt": _AT}
    ),
    EventType.DATA_PURGE_SCHEDULED: EventInfo(
        "Novita deletes the disk of the stopped instance in 24 hours.",
        PurgeFacts,
        example={"purgeAt": "2023-10-21T10:30:00.000Z"},
    ),
    EventType.ADOPTED: EventInfo("An existing upstream instance became a record."),
    EventType.RELEASED: EventInfo(
        "A record was released; its instance continues at Novita.",
        StatusFacts,
        example=_from(InstanceStatus.RUNNING),
    ),
    EventType.UPDATED: EventInfo(
        "A `PATCH` changed the instance.", UpdateFacts, example={"changed": ["tags"]}
    ),
    EventType.WEBHOOK_SWITCHED_OFF: EventInfo(
        "A receiver answered 410 or failed for 5 days.",
        SwitchedOffFacts,
        example={
            "webhookId": "whk_2w4e6r8t1y3u5i7o9p0a",
            "url": "https://webhook.example.com/notify",
            "reason": "gone",
        },
    ),
    EventType.ACCOUNT_CHANGED: EventInfo(
        "The account is held, or the hold ended.",
        data=AccountChange,
        example={
            "held": False,
            "message": "The account matches the records again, or a person has confirmed it",
        },
    ),
    EventType.ORPHAN_FOUND: EventInfo(
        "An upstream instance has this installation's marker and no record.",
        data=Orphan,
        example={
            "upstreamId": _UPSTREAM_ID,
            "name": "my-instance",
            "upstreamStatus": "running",
            "createdAt": _AT,
        },
    ),
    EventType.ORPHAN_DELETED: EventInfo(
        "An orphan was deleted (`NOVITAI_ORPHANS=delete`).",
        data=Orphan,
        example={"upstreamId": _UPSTREAM_ID, "name": "my-instance", "upstreamStatus": "running"},
    ),
    EventType.BUDGET_ALERT: EventInfo(
        "A threshold of `alertAt` is spent. Once for each threshold in a period.",
        data=BudgetAlert,
        example={**_BUDGET, "threshold": 80},
    ),
    EventType.BUDGET_EXCEEDED: EventInfo(
        "A budget is spent. Once in a period.",
        data=SpentBudget,
        example={**_BUDGET, "spent": 500.5},
    ),
    EventType.COST_UNEXPLAINED: EventInfo(
        "Novita has billed an instance above or below the bounds of the ledger, by more than $0.50 "
        "and 2 % in a day. Once for each instance and day.",
        data=UnexplainedCost,
        example={
            "upstreamId": _UPSTREAM_ID,
            "name": "my-instance",
            "day": "2023-10-20",
            "state": "over",
            "ours": 14.4,
            "oursAtMost": 14.45,
            "billed": 19.2,
            "difference": 4.75,
        },
    ),
    EventType.COST_UNKNOWN_OWNER: EventInfo(
        "Novita has billed something that neither a record pays nor a listing has shown. Once for "
        "each owner and day.",
        data=UnknownCost,
        example={"upstreamId": _UPSTREAM_ID, "day": "2023-10-20", "billed": 1.2},
    ),
    EventType.COST_RECONCILIATION_UNAVAILABLE: EventInfo(
        "None of Novita's bills is of an instance of this installation. Then it is the only event "
        "about bills. Once a day.",
        data=UselessBills,
        example={
            "day": "2023-10-20",
            "unknownOwners": 3,
            "notBilled": 2,
            "message": "No owner of Novita's bills is an instance of this installation",
        },
    ),
}
"""By event type, in the order of `EventType`."""

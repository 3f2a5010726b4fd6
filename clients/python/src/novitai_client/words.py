# SPDX-License-Identifier: Apache-2.0
"""The words that fields of requests and responses can be."""

from __future__ import annotations

from typing import Literal

AutoStopState = Literal["armed", "warning", "signalLost"]
"""Whether an idle instance is stopped soon, later, or not at all for lack of a signal."""
BillState = Literal["matched", "over", "under", "notBilledYet", "unknownOwner"]
"""How the bills of an owner compare with the ledger."""
BillingMode = Literal["onDemand", "spot"]
"""How Novita charges: on demand at a fixed price, or spot: cheaper, but reclaimable."""
BudgetAction = Literal["alert", "refuse", "stop"]
"""The effect of a budget that has no room left, besides its events."""
BudgetPeriod = Literal["day", "week", "month", "total"]
"""After which time a budget begins again; `total` never does."""
DeliveryStatus = Literal["pending", "delivered", "dead"]
"""The state of a message to one receiver."""
WebhookEventType = Literal[
    "instance.created",
    "instance.starting",
    "instance.running",
    "instance.stopping",
    "instance.stopped",
    "instance.failed",
    "instance.migrating",
    "instance.spot_reclaim_scheduled",
    "instance.terminating",
    "instance.terminated",
    "instance.identity_unconfirmed",
    "instance.reappeared",
    "instance.delete_ineffective",
    "instance.limit_near",
    "instance.limit_reached",
    "instance.limit_unenforced",
    "instance.autostop_warning",
    "instance.autostop_fired",
    "instance.autostop_failed",
    "instance.autostop_signal_lost",
    "instance.kept",
    "instance.data_purge_scheduled",
    "instance.adopted",
    "instance.released",
    "instance.price_changed",
    "account.changed",
    "account.orphan_found",
    "account.orphan_deleted",
    "budget.alert",
    "budget.exceeded",
    "cost.unexplained",
    "cost.unknown_owner",
    "cost.reconciliation_unavailable",
]
"""The event types that webhooks can receive."""
EventType = Literal[
    WebhookEventType,
    "instance.drift",
    "instance.cleaned_up",
    "instance.surplus_deleted",
    "instance.attempt_refused",
    "instance.start_refused",
    "instance.stop_refused",
    "instance.operation_cancelled",
    "instance.updated",
    "webhook.switched_off",
]
"""All event types: webhooks get most of them."""
HoldReason = Literal["disappeared", "key_changed", "restored"]
"""Why the account is on hold."""
IdleSignal = Literal["lastUsed", "gpu"]
"""The signs of use that auto-stop watches."""
InstanceStatus = Literal[
    "creating",
    "starting",
    "running",
    "stopping",
    "stopped",
    "migrating",
    "failed",
    "terminating",
    "terminated",
    "released",
]
"""The statuses of an instance."""
KeyLimit = Literal["maxInstances", "maxHourlyPrice", "maxRunMinutes", "budget", "tags"]
"""The limit that a key exceeds, as errors name it."""
LimitAction = Literal["stop", "delete"]
"""The effect of a limit that is reached."""
OffReason = Literal["requested", "gone", "failing"]
"""Why a webhook is switched off."""
OperationKind = Literal["create", "start", "stop", "restart", "delete", "reap", "follow", "sync"]
"""The kinds of operations. The server begins `reap`, `follow` and `sync` on its own."""
Outcome = Literal["succeeded", "failed", "cancelled"]
"""How an operation ended."""
Scope = Literal["read", "write", "admin"]
"""The permissions of a key; each scope includes those before it."""
SpanKind = Literal["gpu", "disk"]
"""What a span bills: the GPUs, or the container disk above its free size."""
StopReason = Literal[
    "maxSpend", "maxRunMinutes", "stopAt", "budget", "autoStop", "deleteAfterStopped", "keyLimit"
]
"""The limit or budget that ends a run, or the limit that deletes a stopped instance."""
SystemPart = Literal[
    "sync",
    "cleanup",
    "correction",
    "limits",
    "autostop",
    "budgets",
    "reconciliation",
    "webhooks",
    "operator",
]
"""The parts of novitai that make changes of their own."""

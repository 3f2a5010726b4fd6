# SPDX-License-Identifier: Apache-2.0
"""Examples for the OpenAPI document: those of the API reference, with the fields added since.

Each is declared once, by the model of a body; responses of one operation that differ from it are
listed by operation. A test compares every example with its schema. `failures` generates the
examples of errors. The module is imported only when the document is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from novitai.api.http.accept import JSON
from novitai.api.routing.router import Route
from novitai.domain.instance import InstanceStatus

KEY_ID: Final = "key_7h2k9d4s6f1g3j5l8p0q"

_AT: Final = "2023-10-20T10:30:00.000Z"
_EARLIER: Final = "2023-10-20T10:20:00.000Z"
_LATER: Final = "2023-10-20T11:30:00.000Z"
_ID: Final = "inst_1697843200_abc123"
_OTHER_ID: Final = "inst_1697843300_def456"
_OPERATION_ID: Final = "op_3f9k2m5x8q1w7e4r6t0y"
_EVENT_ID: Final = "evt_9k3f7x2m5q8w1e4r6t0y"
_WEBHOOK_ID: Final = "whk_2w4e6r8t1y3u5i7o9p0a"
_UPSTREAM_ID: Final = "3560b7fec915bbf9"
_CODE: Final = "Example0Example0Example0Example0Example0abc"
_RECEIVER: Final = "https://webhook.example.com/notify"
_KEY: Final = {"keyId": KEY_ID, "name": "ci"}
_LISTED: Final = {
    "id": _ID,
    "name": "my-instance",
    "status": "running",
    "gpuNum": 2,
    "region": "US-WEST-01",
    "portMappings": [],
    "createdAt": _EARLIER,
    "readyAt": "2023-10-20T10:28:30.000Z",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
    "rootfsSize": 80,
    "billingMode": "onDemand",
    "tags": {"team": "vision"},
    "createdBy": _KEY,
}
_INSTANCE: Final = {
    **_LISTED,
    "portMappings": [{"port": 22, "endpoint": "ssh://gpu-123.novitai.com:2222", "type": "tcp"}],
    "connectionDetails": {
        "ssh": "ssh://gpu-123.novitai.com:2222",
        "jupyter": "https://gpu-123.novitai.com:8888",
    },
}
_STOPPED: Final = {
    **{name: value for name, value in _LISTED.items() if name != "readyAt"},
    "status": "stopped",
    "stoppedAt": _AT,
}
_TERMINATED: Final = {**_STOPPED, "status": "terminated"}
_CREATING: Final = {
    **{name: value for name, value in _LISTED.items() if name != "readyAt"},
    "status": "creating",
    "operation": {"id": _OPERATION_ID, "kind": "create", "phase": "place"},
}
_NEW_INSTANCE: Final = {
    "name": "my-instance",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
    "gpuNum": 2,
    "rootfsSize": 80,
    "region": "US-WEST-01",
    "webhookUrl": _RECEIVER,
}
_OPERATION: Final = {
    "id": _OPERATION_ID,
    "kind": "create",
    "instanceId": _ID,
    "phase": "place",
    "done": False,
    "attempts": 0,
    "createdAt": _EARLIER,
    "updatedAt": _EARLIER,
    "actor": _KEY,
}
_EVENT: Final = {
    "id": _EVENT_ID,
    "type": "instance.running",
    "at": _AT,
    "data": {**_INSTANCE, "previousStatus": "starting"},
    "actor": _KEY,
}
_KEY_LIMITS: Final = {
    "maxInstances": 3,
    "maxHourlyPrice": 2.5,
    "maxRunMinutes": 60,
    "budget": {"amount": 20, "period": "day"},
}
_NEW_KEY: Final = {"name": "ci", "scopes": ["read", "write"], "limits": _KEY_LIMITS}
_SHOWN_KEY: Final = {"id": KEY_ID, **_NEW_KEY, "createdAt": _EARLIER}
_WEBHOOK: Final = {
    "id": _WEBHOOK_ID,
    "url": _RECEIVER,
    "eventTypes": ["instance.running", "instance.failed"],
    "enabled": True,
    "createdAt": _EARLIER,
    "updatedAt": _EARLIER,
}
_ATTEMPT: Final = {"at": _AT, "statusCode": 200, "durationMs": 84, "response": "ok"}
_DELIVERY: Final = {
    "id": "msg_4x8v1k7q2m9c3f6t0z5b",
    "eventId": _EVENT_ID,
    "type": "instance.running",
    "instanceId": _ID,
    "webhookId": _WEBHOOK_ID,
    "url": _RECEIVER,
    "status": "delivered",
    "createdAt": _AT,
    "endedAt": _AT,
    "attempts": [_ATTEMPT],
}
_RESENT: Final = {
    **{name: value for name, value in _DELIVERY.items() if name != "endedAt"},
    "status": "pending",
    "nextAttemptAt": _LATER,
}
_NEW_BUDGET: Final = {
    "name": "Vision team",
    "amount": 500,
    "period": "month",
    "tz": "Europe/Berlin",
    "scope": {"tag": {"name": "team", "value": "vision"}},
    "alertAt": [50, 80, 100],
    "onLimit": "refuse",
}
_BUDGET: Final = {
    "id": "bud_5j8l0q2w4e6r8t1y3u5i",
    **_NEW_BUDGET,
    "spent": 379.5,
    "reserved": 0.0,
    "remaining": 120.5,
    "periodStart": "2023-09-30T22:00:00.000Z",
    "periodEnd": "2023-10-31T23:00:00.000Z",
    "createdAt": _EARLIER,
    "updatedAt": _EARLIER,
}
_UNMANAGED: Final = {
    "upstreamId": _UPSTREAM_ID,
    "name": "made-by-hand",
    "status": "running",
    "orphan": False,
    "hourlyPrice": 0.35,
    "createdAt": _EARLIER,
    "region": "US-WEST-01",
}
_CACHE: Final = {
    "hits": 800,
    "misses": 200,
    "hitRatio": 0.8,
    "size": 1,
    "maxSize": 64,
    "ttlSeconds": 60.0,
    "evictions": 0,
    "expired": 3,
}
_DURATIONS: Final = {
    "count": 1250,
    "totalDuration": 150000,
    "averageDuration": 120,
    "minDuration": 10,
    "maxDuration": 2000,
}
_COSTS: Final = {
    "ours": 4.2,
    "oursAtMost": 4.25,
    "billed": 4.22,
    "difference": 0.0,
}

_HEALTH: Final[Mapping[str, Any]] = {
    "status": "healthy",
    "timestamp": _AT,
    "services": {"novitaApi": "up", "jobQueue": "up", "cache": "up"},
    "uptime": 3600,
    "performance": {
        "requestsPerMinute": 45.5,
        "averageResponseTime": 120,
        "errorRate": 0.2,
        "jobProcessingRate": 8.3,
    },
    "system": {
        "memory": {"usedMB": 256, "totalMB": 512, "externalMB": 12, "rss": 300},
        "cpu": {"usage": 25.4, "loadAverage": [0.8, 0.6, 0.5]},
    },
}

EXAMPLES: Final[Mapping[str, Any]] = {
    # Requests
    "AdoptInstanceRequest": {"upstreamId": _UPSTREAM_ID},
    "ChangeBudgetRequest": {"amount": 750, "onLimit": None},
    "ChangeInstanceRequest": {"tags": {"team": "vision", "project": None}},
    "ChangeWebhookRequest": {"enabled": True, "description": None},
    "ClearCacheRequest": {"cacheName": "templates"},
    "ConfirmAccountRequest": {"missingDigest": "9f86d081884c7d65"},
    "CreateBudgetRequest": _NEW_BUDGET,
    "CreateInstanceRequest": _NEW_INSTANCE,
    "CreateKeyRequest": _NEW_KEY,
    "CreateSessionRequest": {"key": "nvt_example0example0example0example0abc123"},
    "CreateWebhookRequest": {
        "url": _RECEIVER,
        "eventTypes": ["instance.running", "instance.failed"],
    },
    "InstanceNameRequest": {"instanceName": "my-instance"},
    "KeepRequest": {"minutes": 60},
    "LastUsedRequest": {"lastUsedAt": _AT},
    "NoFields": {},
    "QuoteRequest": _NEW_INSTANCE,
    "ReplayRequest": {"since": _EARLIER},
    # Responses
    "AccountResponse": {
        "held": False,
        "listedAt": _AT,
        "incompleteListings": 0,
        "orphans": 0,
    },
    "BudgetView": _BUDGET,
    "CacheChangedResponse": {
        "message": "All caches cleared successfully",
        "timestamp": _AT,
        "entriesRemoved": 100,
    },
    "CacheDeletedResponse": {
        "message": f"Key '{_ID}' deleted from cache 'instance-details'",
        "timestamp": _AT,
    },
    "CacheDetails": {
        **_CACHE,
        "cacheName": "templates",
        "timestamp": _AT,
        "keys": [{"key": "all", "ageSeconds": 12.5, "timeLeftSeconds": 47.5}],
    },
    "CachesResponse": {
        "timestamp": _AT,
        "caches": {"templates": _CACHE},
        "summary": {
            "totalCaches": 1,
            "totalEntries": 1,
            "totalHits": 800,
            "totalMisses": 200,
            "overallHitRatio": 0.8,
        },
    },
    "ConfirmAccountResponse": {"confirmed": 2},
    "CostSummaryResponse": {
        "currency": "USD",
        "burnPerHour": 1.2,
        "today": 6.3,
        "thisMonth": 182.75,
        "balance": 240.0,
        "runwayHours": 200.0,
        "asOf": _AT,
    },
    "CostsResponse": {
        "currency": "USD",
        "from": "2023-10-01T00:00:00.000Z",
        "to": _AT,
        "total": 182.75,
        "totalAtMost": 183.1,
        "rows": [{"key": _ID, "amount": 182.75, "amountAtMost": 183.1, "gpuHours": 304.58}],
    },
    "CreateInstanceResponse": {
        "instanceId": _ID,
        "status": "creating",
        "message": "Instance creation initiated successfully",
        "estimatedReadyTime": _AT,
    },
    "SessionResponse": {
        "keyId": KEY_ID,
        "name": "ci",
        "scopes": ["write"],
        "expiresAt": _LATER,
    },
    "LoginCodeResponse": {
        "code": _CODE,
        "url": f"https://novitai.example.com/#code={_CODE}",
        "expiresAt": _LATER,
    },
    "CreateKeyResponse": {**_SHOWN_KEY, "key": "nvt_example0example0example0example0abc123"},
    "CredentialsResponse": {
        "instanceId": _ID,
        "sshPassword": "correct-horse-battery",
        "jupyter": "https://gpu-123.novitai.com:8888/lab?token=0a1b2c3d",
    },
    "DeliveryView": _RESENT,
    "HealthCheckResponse": _HEALTH,
    "InstanceCostResponse": {
        "currency": "USD",
        "hourlyPrice": 1.2,
        "accrued": 4.2,
        "accruedAtMost": 4.25,
        "asOf": _AT,
        "instanceId": _ID,
        "gpu": {"accrued": 4.1, "accruedAtMost": 4.14},
        "storage": {"accrued": 0.1, "accruedAtMost": 0.11},
        "spans": [
            {
                "kind": "gpu",
                "hourlyRate": 1.2,
                "beganAfter": "2023-10-20T07:05:00.000Z",
                "beganBy": "2023-10-20T07:05:05.000Z",
            }
        ],
    },
    "InstanceDetails": _INSTANCE,
    "KeyView": {**_SHOWN_KEY, "lastUsedAt": _AT, "revokedAt": _AT},
    "ListBudgetsResponse": {"budgets": [_BUDGET]},
    "ListDeliveriesResponse": {"deliveries": [_DELIVERY]},
    "ListEventsResponse": {"events": [_EVENT]},
    "ListInstancesResponse": {"instances": [_LISTED], "total": 1},
    "CurrentKeyResponse": _SHOWN_KEY,
    "ListKeysResponse": {"keys": [_SHOWN_KEY]},
    "ListOperationsResponse": {"operations": [_OPERATION]},
    "ListProductsResponse": {
        "products": [
            {
                "id": "gpu-basic.8c32g",
                "name": "gpu-basic",
                "regions": ["CN-HK-01", "US-WEST-01"],
                "available": True,
                "onDemandPrice": 0.6,
                "spotPrice": 0.3,
                "cpuPerGpu": 8,
                "memoryPerGpu": 32,
                "minRootfsSize": 20,
                "maxRootfsSize": 1000,
            }
        ],
        "nextCursor": "1",
    },
    "ListRegionsResponse": {
        "regions": [
            {"name": "CN-HK-01", "default": True},
            {"name": "US-WEST-01", "default": False},
        ]
    },
    "ListTemplatesResponse": {
        "templates": [
            {
                "id": "tmpl-12345",
                "name": "PyTorch",
                "image": "pytorch/pytorch:2.1.0-cuda12.1-cudnn8-runtime",
                "channel": "official",
                "rootfsSize": 60,
                "ports": [{"port": 22, "type": "tcp"}, {"port": 8888, "type": "http"}],
            }
        ]
    },
    "ListUnmanagedResponse": {"instances": [_UNMANAGED], "total": 1},
    "ListWebhooksResponse": {"webhooks": [_WEBHOOK]},
    "MetricsResponse": {
        "status": "success",
        "timestamp": _AT,
        "data": {
            "requests": {
                "total": {
                    **_DURATIONS,
                    "statusCodes": {"200": 1200, "400": 30, "401": 10, "404": 5, "500": 5},
                },
                "byEndpoint": {"POST /api/instances": _DURATIONS},
                "byMethod": {"POST": _DURATIONS},
            },
            "jobs": {
                "total": {
                    "processed": 85,
                    "failed": 2,
                    "averageProcessingTime": 4500,
                    "queueSize": 0,
                },
                "byType": {
                    "create_instance": {
                        "processed": 85,
                        "failed": 2,
                        "averageProcessingTime": 4500,
                        "queueSize": 0,
                    }
                },
                "fencedWrites": 0,
            },
            "system": {
                "memory": {
                    "rss": 300000000,
                    "heapTotal": 200000000,
                    "heapUsed": 150000000,
                    "external": 10000000,
                },
                "cpu": {"usage": 0.25, "loadAverage": [0.8, 0.6, 0.5]},
                "uptime": 3600,
            },
            "cache": {
                "hits": 800,
                "misses": 200,
                "hitRatio": 0.8,
                "totalSize": 100,
                "evictions": 0,
            },
            "series": {"novitai_orphans": [{"labels": {}, "value": 0}]},
        },
    },
    "OperationView": _OPERATION,
    "ProbeResponse": {"status": "ok", "timestamp": _AT},
    "QuoteResponse": {
        "quoteId": "quote_3f9k2m5x8q1w7e4r6t0y",
        "expiresAt": "2023-10-20T10:35:00.000Z",
        "candidates": [
            {
                "productId": "gpu-basic.8c32g",
                "region": "US-WEST-01",
                "hourlyPrice": 1.2,
                "storagePerDay": 0.1,
                "estimatedReadySeconds": 240,
            }
        ],
        "refused": [
            {
                "productId": "gpu-basic.12c48g",
                "region": "US-WEST-01",
                "reason": "NOT_AVAILABLE",
                "message": "Out of stock in US-WEST-01 for 2 GPU(s)",
            }
        ],
        "budgets": [{"id": "bud_5j8l0q2w4e6r8t1y3u5i", "remaining": 120.5, "allows": True}],
        "message": "Nothing was bought or reserved",
    },
    "ReconciliationResponse": {
        "currency": "USD",
        "from": "2023-10-01T00:00:00.000Z",
        "to": "2023-10-20T10:00:00.000Z",
        "billKnownUntil": "2023-10-20T08:00:00.000Z",
        "totals": {**_COSTS, "beforeAdoption": 0.0, "pending": 1.2, "unmanaged": 0.0},
        "rows": [
            {
                "upstreamId": _UPSTREAM_ID,
                "instanceId": _ID,
                "name": "my-instance",
                "state": "matched",
                **_COSTS,
                "pending": 1.2,
            }
        ],
    },
    "ReplayResponse": {"webhookId": _WEBHOOK_ID, "messages": 12},
    "RevealedWebhook": {**_WEBHOOK, "secret": "whsec_EXAMPLEEXAMPLEEXAMPLEEXAMPLEEXAMPLE"},
    "StopAllResponse": {
        "operations": [{"instanceId": _ID, "operationId": _OPERATION_ID}],
        "skipped": [{"instanceId": _OTHER_ID, "reason": "OPERATION_IN_PROGRESS"}],
    },
    "SyncResponse": {"operationId": _OPERATION_ID},
    "UnmanagedInstance": {**_UNMANAGED, "dismissed": True},
    "UtilizationResponse": {
        "gpu": [{"at": _EARLIER, "percent": 87.5}, {"at": _AT, "percent": 91.0}],
        "gpuMemory": [{"at": _AT, "percent": 64.25}],
        "cpu": [{"at": _AT, "percent": 32.0}],
        "memory": [{"at": _AT, "percent": 41.5}],
        "disk": [{"at": _AT, "percent": 12.0}],
    },
    "WebhookTestResponse": {
        "messageId": "msg_4x8v1k7q2m9c3f6t0z5b",
        "delivered": True,
        "attempt": _ATTEMPT,
    },
    "WebhookView": _WEBHOOK,
}
"""By the name of the model of a body."""


def _verb(noun: str, status: str) -> dict[str, Any]:
    return {
        "instanceId": _ID,
        "status": status,
        "operationId": _OPERATION_ID,
        "message": f"Instance {noun} initiated successfully",
    }


OF_ANSWERS: Final[Mapping[tuple[str, int], Any]] = {
    **{
        (f"{verb}Instance{by_name}", status): example
        for by_name in ("", "ByName")
        for verb, accepted, done in (
            ("start", _verb("start", "starting"), _INSTANCE),
            ("stop", _verb("stop", "stopping"), _STOPPED),
            ("restart", _verb("restart", "starting"), _INSTANCE),
            ("delete", _verb("deletion", "terminating"), _TERMINATED),
        )
        for status, example in ((202, accepted), (200, done))
    },
    ("waitForInstance", 202): _CREATING,
    ("cancelOperation", 200): {**_OPERATION, "done": True, "outcome": "cancelled"},
    ("adoptInstance", 201): {
        **{
            name: value
            for name, value in _INSTANCE.items()
            if name not in {"createdBy", "templateId", "rootfsSize"}
        },
        "upstreamId": _UPSTREAM_ID,
        "origin": "adopted",
    },
    ("releaseInstance", 200): {**_INSTANCE, "status": "released"},
    ("getHealth", 503): {
        **_HEALTH,
        "status": "unhealthy",
        "services": {"novitaApi": "down", "jobQueue": "up", "cache": "up"},
    },
    ("checkReadiness", 503): {
        "status": "unavailable",
        "timestamp": _AT,
        "reason": "STORE_UNAVAILABLE",
    },
}
"""By operation ID and status, for responses that differ from the example of their model."""

OF_TEXTS: Final[Mapping[tuple[str, str], str]] = {
    ("streamEvents", "text/event-stream"): (
        f"retry: 2000\n\nid: {_EVENT_ID}\nevent: instance.running\n"
        f'data: {{"id":"{_EVENT_ID}","type":"instance.running","at":"{_AT}","data":{{}}}}\n\n'
    ),
    ("getCosts", "text/csv"): (
        f"key,bucket,amount,amountAtMost,gpuHours\r\n{_ID},,182.75000,183.10000,304.5800\r\n"
    ),
    ("getMetrics", "text/plain"): (
        "# HELP novitai_orphans Orphans in the account.\n"
        "# TYPE novitai_orphans gauge\nnovitai_orphans 0.0\n"
    ),
    ("getMetrics", "application/openmetrics-text"): (
        "# HELP novitai_orphans Orphans in the account.\n"
        "# TYPE novitai_orphans gauge\nnovitai_orphans 0.0\n# EOF\n"
    ),
}
"""By operation ID and media type, for responses that are no JSON."""


def of_answer(route: Route, status: int, media_type: str) -> Any:
    """Return the example of a successful response."""
    if media_type != JSON:
        return OF_TEXTS[route.id, media_type]
    if (route.id, status) in OF_ANSWERS:
        return OF_ANSWERS[route.id, status]
    model = route.answers[status]
    return None if model is None else EXAMPLES[model.__name__]


def message(event_type: str, facts: Mapping[str, Any], *, about_instance: bool) -> dict[str, Any]:
    """Return the example of a webhook's message."""
    data: dict[str, Any] = {}
    if about_instance:
        known = {one.value for one in InstanceStatus}
        word = event_type.rpartition(".")[2]
        status = "creating" if word == "created" else word if word in known else "running"
        data = {**_LISTED, "status": status, "createdBy": {"keyId": KEY_ID}}
    actor = {"keyId": KEY_ID}
    return {"type": event_type, "timestamp": _AT, "data": {**data, **facts, "actor": actor}}

# SPDX-License-Identifier: Apache-2.0
"""Examples for the OpenAPI document: those of the API reference, with the fields added since.

Each example matches the schema of its response. `document` generates the examples of errors.
"""

from __future__ import annotations

from typing import Any, Final

_AT: Final = "2023-10-20T10:30:00.000Z"
_ID: Final = "inst_1697843200_abc123"
_LISTED: Final = {
    "id": _ID,
    "name": "my-instance",
    "status": "running",
    "gpuNum": 2,
    "region": "US-WEST-01",
    "portMappings": [],
    "createdAt": "2023-10-20T10:20:00.000Z",
    "readyAt": "2023-10-20T10:28:30.000Z",
    "productName": "gpu-basic",
    "templateId": "tmpl-12345",
    "rootfsSize": 80,
    "billingMode": "onDemand",
}
_INSTANCE: Final = {
    **_LISTED,
    "portMappings": [{"port": 22, "endpoint": "ssh://gpu-123.novitai.com:2222", "type": "tcp"}],
    "connectionDetails": {
        "ssh": "ssh://gpu-123.novitai.com:2222",
        "jupyter": "https://gpu-123.novitai.com:8888",
    },
}
_DURATIONS: Final = {
    "count": 1250,
    "totalDuration": 150000,
    "averageDuration": 120,
    "minDuration": 10,
    "maxDuration": 2000,
}

EXAMPLES: Final[dict[tuple[str, int], object]] = {
    ("post_api_instances", 201): {
        "instanceId": _ID,
        "status": "creating",
        "message": "Instance creation initiated successfully",
        "estimatedReadyTime": _AT,
    },
    ("get_api_instances_instanceId", 200): _INSTANCE,
    ("get_api_instances", 200): {"instances": [_LISTED], "total": 1},
    ("get_health", 200): {
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
    },
    ("get_metrics", 200): {
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
        },
    },
    ("post_api_cache_clear", 200): {
        "message": "All caches cleared successfully",
        "timestamp": _AT,
        "entriesRemoved": 100,
    },
    ("delete_api_cache_cacheName_key", 200): {
        "message": f"Key '{_ID}' deleted from cache 'instance-details'",
        "timestamp": _AT,
    },
}
"""By operation ID and status."""


def add_examples(document: dict[str, Any]) -> None:
    """Add the examples to the operations that a document has."""
    for item in document["paths"].values():
        for operation in item.values():
            for status, answer in operation["responses"].items():
                if not status.isdigit():
                    continue
                example = EXAMPLES.get((operation["operationId"], int(status)))
                if example is not None:
                    answer["content"]["application/json"]["example"] = example

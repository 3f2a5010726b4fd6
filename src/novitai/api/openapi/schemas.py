# SPDX-License-Identifier: Apache-2.0
"""The wire: what is sent and answered, for the OpenAPI document and for tests.

Nothing is validated through these at run time: requests are read by `domain.validation`, which
tells everything that is wrong at once, and answers are written as bytes.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from novitai.domain.api_key import MAX_NAME, Scope
from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.validation import (
    MAX_ENV_NAME,
    MAX_ENV_VALUE,
    MAX_ENVS,
    MAX_HOURLY_PRICE,
    MAX_URL,
)
from novitai.errors import Category

_UNSEEN: Final = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
VISIBLE: Final = f"^[^{_UNSEEN}]*$"
"""Text without control characters."""
NOT_BLANK: Final = rf"^[^{_UNSEEN}]*[^{_UNSEEN}\s][^{_UNSEEN}]*$"
"""The same, with something in it besides spaces."""
_ENVS: Final = {
    "maxProperties": MAX_ENVS,
    "propertyNames": {
        "minLength": 1,
        "maxLength": MAX_ENV_NAME,
        "pattern": rf"^[^{_UNSEEN}=\s]+$",
    },
    "additionalProperties": {
        "type": "string",
        "maxLength": MAX_ENV_VALUE,
        "pattern": r"^(?:[\t\n\r]|[^" + _UNSEEN + "])*$",
    },
}


def absent() -> Any:
    """Say that a field may be left out; it is never `null`."""
    return Field(default=None, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


class Wire(BaseModel):
    """An object on the wire: camelCase, nothing beyond what is named."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", populate_by_name=True)


class CreateInstanceRequest(Wire):
    """What is wanted. Unknown fields are refused: a misspelt field costs money."""

    name: Annotated[str, Field(min_length=1, max_length=100, pattern="^[A-Za-z0-9_-]+$")]
    product_name: Annotated[str, Field(min_length=1, max_length=255, pattern=NOT_BLANK)]
    template_id: Annotated[str, Field(min_length=1, max_length=255, pattern=NOT_BLANK)]
    gpu_num: Annotated[int, Field(ge=1, le=8)] = 1
    rootfs_size: Annotated[int, Field(ge=20, le=1000, description="GB")] = 60
    region: Annotated[
        str,
        Field(
            min_length=1,
            max_length=64,
            pattern=NOT_BLANK,
            # No `default`: a client that sends it would ask for that region alone.
            description="Default: CN-HK-01 first, then all others, cheapest first. A region of GET "
            "/api/regions that is sent is honoured strictly, CN-HK-01 too, unless `regionFallback` "
            "is true; `any` is the cheapest of all regions.",
        ),
    ] = absent()
    webhook_url: Annotated[
        str,
        Field(
            min_length=1,
            max_length=MAX_URL,
            description="HTTP or HTTPS; told of each change of status",
        ),
    ] = absent()
    billing_mode: BillingMode = BillingMode.ON_DEMAND
    max_hourly_price: Annotated[
        float, Field(gt=0, le=MAX_HOURLY_PRICE, description="USD for the whole instance")
    ] = absent()
    region_fallback: bool = False
    envs: Annotated[
        dict[str, str],
        Field(description="Merged over the template's; never shown", json_schema_extra=_ENVS),
    ] = Field(default_factory=dict)

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "name": "my-instance",
                "productName": "gpu-basic",
                "templateId": "tmpl-12345",
                "gpuNum": 2,
                "rootfsSize": 80,
                "region": "US-WEST-01",
                "webhookUrl": "https://webhook.example.com/notify",
            }
        }
    )


class CreateInstanceResponse(Wire):
    """An accepted request. The instance is bought after this answer."""

    instance_id: str
    status: Literal["creating"]
    message: Literal["Instance creation initiated successfully"]
    estimated_ready_time: datetime


class PortMappingView(Wire):
    """A port as Novita published it."""

    port: int
    endpoint: str
    type: str


class ConnectionDetails(Wire):
    """How to reach the instance."""

    ssh: str = absent()
    jupyter: str = absent()
    web_terminal: str = absent()


class RunningOperation(Wire):
    """What is being done to the instance now."""

    id: str
    kind: str
    phase: str


class InstanceErrorView(Wire):
    """Why the instance failed, why its last start or stop was refused, or who reclaimed it."""

    code: str
    message: str
    at: datetime


class InstanceDetails(Wire):
    """An instance. What is not known or does not apply is left out."""

    id: str
    name: str
    status: InstanceStatus
    gpu_num: int
    region: str
    port_mappings: list[PortMappingView]
    connection_details: ConnectionDetails = absent()
    created_at: datetime
    ready_at: datetime = absent()
    product_name: str
    product_id: str = absent()
    template_id: str
    rootfs_size: int
    billing_mode: BillingMode
    hourly_price: Annotated[
        float,
        Field(
            description="USD for the whole instance: what Novita charges for it now; where it does "
            "not say, the price at which it was bought"
        ),
    ] = absent()
    webhook_url: str = absent()
    started_at: datetime = absent()
    stopped_at: datetime = absent()
    last_used_at: datetime = absent()
    spot_reclaim_at: Annotated[
        datetime,
        Field(description="When Novita takes this spot instance away, or took it, once announced"),
    ] = absent()
    upstream_id: str = absent()
    upstream_status: str = absent()
    operation: RunningOperation = absent()
    error: InstanceErrorView = absent()
    observed_at: datetime = absent()


class ListInstancesResponse(Wire):
    """Instances, newest first. `total` counts all that match."""

    instances: list[InstanceDetails]
    total: int
    next_cursor: str = absent()


class CreateKeyRequest(Wire):
    """A key that is wanted."""

    name: Annotated[str, Field(min_length=1, max_length=MAX_NAME, pattern=NOT_BLANK)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    expires_at: datetime = absent()


class KeyView(Wire):
    """A key without its text."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: datetime
    expires_at: datetime = absent()
    revoked_at: datetime = absent()
    last_used_at: datetime = absent()


class CreateKeyResponse(Wire):
    """A new key. This is the only time that `key` is shown."""

    id: str
    name: str
    scopes: list[Scope]
    key: str
    created_at: datetime
    expires_at: datetime = absent()


class ListKeysResponse(Wire):
    """Keys, newest first, revoked and expired ones too."""

    keys: list[KeyView]
    next_cursor: str = absent()


Up = Literal["up", "down"]


class ServicesHealth(Wire):
    """What this process depends on."""

    novita_api: Up
    job_queue: Up
    cache: Up


class Performance(Wire):
    """The last minute; `averageResponseTime` in milliseconds, `errorRate` in percent (5xx).

    Requests that wait for a status are counted, and not timed.
    """

    requests_per_minute: float
    average_response_time: float
    error_rate: float
    job_processing_rate: float


class HealthMemory(Wire):
    """Megabytes: private, limit of the container or machine, shared, resident."""

    used_mb: float = Field(alias="usedMB")
    total_mb: float = Field(alias="totalMB")
    external_mb: float = Field(alias="externalMB")
    rss: float


class CpuView(Wire):
    """`usage` in percent in `/health`, as a fraction in `/metrics`."""

    usage: float
    load_average: list[float]


class HealthSystem(Wire):
    """What the process uses."""

    memory: HealthMemory
    cpu: CpuView


class ClockView(Wire):
    """The machine's clock went back; by how many seconds, where that was seen."""

    went_back_at: datetime
    seconds: float = absent()


class HealthCheckResponse(Wire):
    """The health of the process and of what it depends on; `uptime` in seconds."""

    status: Literal["healthy", "unhealthy"]
    timestamp: datetime
    services: ServicesHealth
    uptime: float
    performance: Performance
    system: HealthSystem
    clock: ClockView = absent()


class ProbeResponse(Wire):
    """The answer to a probe; `reason` is the error code of what is wrong with the database."""

    status: Literal["ok", "unavailable"]
    timestamp: datetime
    reason: str = absent()


class ProductView(Wire):
    """A product; prices in USD per GPU-hour, the lowest of its regions; sizes in GB.

    A price is left out where the product is not offered in that billing mode.
    """

    id: str
    name: str
    regions: list[str]
    available: bool
    on_demand_price: float = absent()
    spot_price: float = absent()
    cpu_per_gpu: int
    memory_per_gpu: int
    min_rootfs_size: int = absent()
    max_rootfs_size: int = absent()


class ListProductsResponse(Wire):
    """Products, cheapest first."""

    products: list[ProductView]
    next_cursor: str = absent()


class PortView(Wire):
    """A port that a template publishes."""

    port: int
    type: str


class TemplateView(Wire):
    """A template; `rootfsSize` in GB."""

    id: str
    name: str
    image: str
    channel: str
    rootfs_size: int = absent()
    ports: list[PortView]


class ListTemplatesResponse(Wire):
    """Templates."""

    templates: list[TemplateView]
    next_cursor: str = absent()


class RegionView(Wire):
    """A region; the default one is tried first where none is named."""

    name: str
    default: bool


class ListRegionsResponse(Wire):
    """Regions."""

    regions: list[RegionView]
    next_cursor: str = absent()


class RequestDurations(Wire):
    """How many requests, and how long they took, in milliseconds.

    Requests that wait for a status are counted, and not timed.
    """

    count: int
    total_duration: float
    average_duration: float
    min_duration: float
    max_duration: float


class AllRequests(RequestDurations):
    """All requests together, and how many were answered with which status."""

    status_codes: dict[str, int]


class RequestNumbers(Wire):
    """Requests since the process began; endpoints are `METHOD /route/{template}`."""

    total: AllRequests
    by_endpoint: dict[str, RequestDurations]
    by_method: dict[str, RequestDurations]


class JobTypeNumbers(Wire):
    """Runs of jobs since the process began; the mean duration in milliseconds."""

    processed: int
    failed: int
    average_processing_time: float
    queue_size: int


class JobNumbers(Wire):
    """All jobs, and by type (`create_instance`, `sync_instances`, ...).

    `fenced_writes` counts results that came too late: another worker had taken the work over.
    """

    total: JobTypeNumbers
    by_type: dict[str, JobTypeNumbers]
    fenced_writes: int


class MetricsMemory(Wire):
    """Bytes."""

    rss: int
    heap_total: int
    heap_used: int
    external: int


class SystemNumbers(Wire):
    """What the process uses; `uptime` in seconds."""

    memory: MetricsMemory
    cpu: CpuView
    uptime: float


class CacheNumbers(Wire):
    """All caches together."""

    hits: int
    misses: int
    hit_ratio: float
    total_size: int
    evictions: int


class MetricsData(Wire):
    """The numbers."""

    requests: RequestNumbers
    jobs: JobNumbers
    system: SystemNumbers
    cache: CacheNumbers


class MetricsResponse(Wire):
    """The numbers of this process."""

    status: Literal["success"]
    timestamp: datetime
    data: MetricsData


class CacheStatsView(Wire):
    """What one cache did since the process began."""

    hits: int
    misses: int
    hit_ratio: float
    size: int
    max_size: int
    ttl_seconds: float
    evictions: int
    expired: int


class CachesSummary(Wire):
    """All caches together."""

    total_caches: int
    total_entries: int
    total_hits: int
    total_misses: int
    overall_hit_ratio: float


class CachesResponse(Wire):
    """All caches by name."""

    timestamp: datetime
    caches: dict[str, CacheStatsView]
    summary: CachesSummary


class CacheKeyView(Wire):
    """A key, how long ago it was stored, and how long it is still fresh."""

    key: str
    age_seconds: float
    time_left_seconds: float


class CacheDetails(CacheStatsView):
    """One cache with its keys."""

    cache_name: str
    timestamp: datetime
    keys: list[CacheKeyView]


class ClearCacheRequest(Wire):
    """Which cache to clear; all of them where none is named."""

    cache_name: Annotated[str, Field(min_length=1, max_length=64, pattern=VISIBLE)] = absent()


class CacheChangedResponse(Wire):
    """What was done, and how many entries went."""

    message: str
    timestamp: datetime
    entries_removed: int


class CacheDeletedResponse(Wire):
    """What was done."""

    message: str
    timestamp: datetime


class ErrorDetail(Wire):
    """One wrong field. The value is left out where it may be secret."""

    field: str
    message: str
    value: object = absent()


class ErrorBody(Wire):
    """What went wrong, and whether trying again makes sense."""

    code: str
    message: str
    category: Category
    retryable: bool
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] = absent()
    timestamp: datetime
    request_id: str
    correlation_id: str = absent()


class ErrorResponse(Wire):
    """Every error of every kind."""

    error: ErrorBody


class Problem(Wire):
    """The same error as RFC 9457 has it, for `Accept: application/problem+json`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    category: Category
    retryable: bool
    details: list[ErrorDetail] | list[dict[str, object]] | dict[str, object] = absent()
    timestamp: datetime
    request_id: str
    correlation_id: str = absent()


REFERRED: Final[tuple[type[BaseModel], ...]] = (
    CreateInstanceRequest,
    CreateKeyRequest,
    ClearCacheRequest,
    ErrorResponse,
    Problem,
)
"""What the document refers to besides the answers of routes."""

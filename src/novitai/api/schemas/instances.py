# SPDX-License-Identifier: Apache-2.0
"""Schemas of instances: requests, views, lists and verbs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, Strict

from novitai.api.schemas.wire import (
    AS_TIME_TOLD,
    END_OF_TIME,
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
    mask_url,
)
from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.requests import CreateRequest

# Novita's limits on a create call (upstream.md §4).
MAX_ENVS: Final = 100
MAX_ENV_NAME: Final = 511
MAX_ENV_VALUE: Final = 4095
MAX_HOURLY_PRICE: Final = 1_000_000.0

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


def _writable(at: int) -> int:
    if not 0 <= at < END_OF_TIME:
        raise FieldInvalid("Last used at must be between the years 1970 and 9999")
    return at


class CreateInstanceRequest(RequestModel):
    """The instance to create. Unknown fields are rejected: a misspelt field costs money."""

    name: Annotated[Name, Wording("Name", code="INVALID_INSTANCE_NAME", pattern=NAME_TOLD)]
    product_name: Annotated[
        str,
        Field(min_length=1, max_length=255, pattern=NOT_BLANK),
        Wording("Product name", code="INVALID_PRODUCT_NAME"),
    ]
    template_id: Annotated[
        str,
        Field(min_length=1, max_length=255, pattern=NOT_BLANK),
        Wording("Template ID", code="INVALID_TEMPLATE_ID"),
    ]
    gpu_num: Annotated[int, Field(ge=1, le=8), Wording("GPU number", code="INVALID_GPU_NUM")] = 1
    rootfs_size: Annotated[
        int,
        Field(ge=20, le=1000, description="GB"),
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
        Wording("Webhook URL", code="INVALID_WEBHOOK_URL", mask=mask_url),
    ] = absent()
    billing_mode: Annotated[
        BillingMode,
        Strict(False),
        Wording("Billing mode", wrong="Billing mode must be 'onDemand' or 'spot'"),
    ] = BillingMode.ON_DEMAND
    max_hourly_price: Annotated[
        float,
        Field(gt=0, le=MAX_HOURLY_PRICE, description="USD for the whole instance"),
        Wording("Maximum hourly price"),
    ] = absent()
    region_fallback: Annotated[bool, Wording("Region fallback")] = False
    envs: Annotated[
        dict[str, str],
        BeforeValidator(_envs),
        Field(
            description="Merged over the template's variables; never shown", json_schema_extra=_ENVS
        ),
        Wording("Environment variables", secret=True),
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

    def wanted(self) -> CreateRequest:
        """Return it as a request of the domain."""
        return CreateRequest(**dict(self))


class CreateInstanceResponse(ResponseModel):
    """An accepted request. The instance is bought after this response."""

    instance_id: str
    status: Literal["creating"]
    message: Literal["Instance creation initiated successfully"]
    estimated_ready_time: Time


class PortMappingView(ResponseModel):
    """A port that Novita publishes."""

    port: int
    endpoint: str
    type: str


class ConnectionDetails(ResponseModel):
    """How to reach the instance."""

    ssh: str | None = absent()
    jupyter: str | None = absent()
    web_terminal: str | None = absent()


class RunningOperation(ResponseModel):
    """The operation that is running on the instance."""

    id: str
    kind: str
    phase: str


class InstanceErrorView(ResponseModel):
    """Why the instance failed, its last start or stop was refused, or it was reclaimed."""

    code: str
    message: str
    at: Time


class InstanceDetails(ResponseModel):
    """An instance. Fields that are unknown or do not apply are absent."""

    id: str
    name: str
    status: InstanceStatus
    gpu_num: int
    region: str
    port_mappings: list[PortMappingView]
    connection_details: ConnectionDetails | None = absent()
    created_at: Time
    ready_at: Time | None = absent()
    product_name: str
    product_id: str | None = absent()
    template_id: str
    rootfs_size: int
    billing_mode: BillingMode
    hourly_price: (
        Annotated[
            float,
            Field(
                description="USD for the whole instance: what Novita charges now or, if Novita "
                "does not say, the price at which it was bought"
            ),
        ]
        | None
    ) = absent()
    webhook_url: str | None = absent()
    started_at: Time | None = absent()
    stopped_at: Time | None = absent()
    last_used_at: Time | None = absent()
    spot_reclaim_at: Annotated[
        Time | None,
        Field(description="When Novita reclaims or reclaimed this spot instance, once announced"),
    ] = absent()
    upstream_id: str | None = absent()
    upstream_status: str | None = absent()
    operation: RunningOperation | None = absent()
    error: InstanceErrorView | None = absent()
    observed_at: Time | None = absent()


class ListInstancesResponse(ListPage):
    """Instances, newest first. `total` counts all matching instances."""

    instances: list[InstanceDetails]
    total: int


class InstanceNameRequest(RequestModel):
    """The name of an instance; exactly one live instance must have it."""

    instance_name: Annotated[
        Name,
        Wording(
            "Name",
            missing="Instance name is required",
            code="INVALID_INSTANCE_NAME",
            pattern=NAME_TOLD,
        ),
    ]

    model_config = ConfigDict(json_schema_extra={"example": {"instanceName": "my-instance"}})


class LastUsedRequest(RequestModel):
    """When the instance was last used; now if `lastUsedAt` is absent."""

    last_used_at: Annotated[
        SentTime,
        AfterValidator(_writable),
        Field(description="ISO-8601 with an offset"),
        Wording("Last used at", wrong=f"Last used at {AS_TIME_TOLD}"),
    ] = absent()


class VerbResponse(ResponseModel):
    """An accepted verb; poll `/api/operations/{operationId}` for its progress."""

    instance_id: str
    status: InstanceStatus
    operation_id: str
    message: str

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "instanceId": "inst_1697843200_abc123def456",
                "status": "stopping",
                "operationId": "op_3f9k2m5x8q1w7e4r6t0y",
                "message": "Instance stop initiated successfully",
            }
        }
    )


class StopBegun(ResponseModel):
    """An instance that is being stopped."""

    instance_id: str
    operation_id: str


class LeftAlone(ResponseModel):
    """An instance that is not being stopped, and why: an error code, or `ALREADY_STOPPED`."""

    instance_id: str
    reason: str


class StopAllResponse(ResponseModel):
    """The result for each live instance."""

    operations: list[StopBegun]
    skipped: list[LeftAlone]

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "operations": [
                    {
                        "instanceId": "inst_1697843200_abc123def456",
                        "operationId": "op_3f9k2m5x8q1w7e4r6t0y",
                    }
                ],
                "skipped": [
                    {
                        "instanceId": "inst_1697843300_def456abc123",
                        "reason": "OPERATION_IN_PROGRESS",
                    }
                ],
            }
        }
    )


class SyncResponse(ResponseModel):
    """An accepted listing of the account."""

    operation_id: str


class SecretEndpoint(ResponseModel):
    """A published port whose endpoint, as Novita reports it, has user info or a query."""

    port: int
    endpoint: str


class CredentialsResponse(ResponseModel):
    """The passwords of an instance as Novita last reported them; others are absent.

    `jupyter`, `webTerminal` and `endpoints` are complete URLs, present if they have user info or a
    query such as `?token=`, which the view of the instance leaves out.
    """

    instance_id: str
    ssh_password: str | None = absent()
    web_terminal_username: str | None = absent()
    web_terminal_password: str | None = absent()
    jupyter: str | None = absent()
    web_terminal: str | None = absent()
    endpoints: list[SecretEndpoint] | None = absent()

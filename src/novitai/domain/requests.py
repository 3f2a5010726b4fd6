# SPDX-License-Identifier: Apache-2.0
"""Validated client requests for instances."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from novitai.domain.event import EventType
from novitai.domain.idle import AutoStop, AutoStopChange
from novitai.domain.instance import BillingMode
from novitai.domain.limits import LimitsChange, LimitSettings
from novitai.domain.tags import Tags, TagsPatch

MAX_DESCRIPTION: Final = 500
"""The longest description of a webhook, in characters."""


@dataclass(frozen=True, slots=True)
class CreateRequest:
    """A valid request for an instance (API reference, "POST /api/instances").

    If the client named no region, `region` is None: the default region is tried first, and the
    others may follow. `max_hourly_price` is in USD for the whole instance. `quote_id` names the
    quote whose candidates and prices bind the purchase.
    """

    name: str
    product_name: str
    template_id: str
    gpu_num: int = 1
    rootfs_size: int = 60
    region: str | None = None
    webhook_url: str | None = field(default=None, repr=False)
    billing_mode: BillingMode = BillingMode.ON_DEMAND
    max_hourly_price: float | None = None
    region_fallback: bool = False
    envs: Mapping[str, str] = field(default_factory=dict, repr=False)
    quote_id: str | None = None
    limits: LimitSettings | None = None
    protected_reason: str | None = None
    auto_stop: AutoStop | None = None
    tags: Tags = field(default_factory=dict)

    @property
    def falls_back(self) -> bool:
        """Whether other regions are allowed: if the request says so, or names no region."""
        return self.region_fallback or self.region is None


@dataclass(frozen=True, slots=True)
class AdoptRequest:
    """Which upstream instance is to become a record's own.

    Attributes:
        upstream_id: The instance.
        name: The name of the new record; made of upstream's where it is None.
        instance_id: The waiting record that is to be given it, instead of a new one.
        tags: The tags of the new record; a waiting record gets them besides its own.
    """

    upstream_id: str
    name: str | None = None
    instance_id: str | None = None
    tags: Tags = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """A merge patch (RFC 7396) of an instance.

    `given` has the names of the fields that the patch sets. A given field that is None is removed.
    `protected` is the reason of the protection.
    """

    given: frozenset[str]
    tags: TagsPatch | None = None
    webhook_url: str | None = field(default=None, repr=False)
    limits: LimitsChange | None = None
    protected: str | None = None
    auto_stop: AutoStopChange | None = None


@dataclass(frozen=True, slots=True)
class WebhookRequest:
    """A standing webhook that is wanted; no event types means all of them."""

    url: str
    event_types: tuple[EventType, ...] = ()
    enabled: bool = True
    description: str | None = None


@dataclass(frozen=True, slots=True)
class WebhookChange:
    """A change of a standing webhook; None leaves a field unchanged."""

    url: str | None = None
    event_types: tuple[EventType, ...] | None = None
    enabled: bool | None = None
    description: str | None = None
    remove_description: bool = False

# SPDX-License-Identifier: Apache-2.0
"""The upstream endpoints in use, with their breaker, priority and "not found" reasons."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final

from novitai.upstream.limiter import Priority


class EndpointClass(StrEnum):
    """A class of endpoints that tend to fail together and share a breaker."""

    CATALOGUE = "catalogue"
    INSTANCES = "instances"
    CREATE = "create"
    LIFECYCLE = "lifecycle"
    FIGURES = "figures"
    """Figures that are shown beside an instance. Their failures concern nothing else."""

    @property
    def has_breaker(self) -> bool:
        """Whether its failures open a breaker."""
        return self is not EndpointClass.FIGURES


_INSTANCE_GONE: Final = frozenset({"RESOURCE_NOT_FOUND", "INSTANCE_NOT_FOUND"})
_TEMPLATE_GONE: Final = frozenset({"RESOURCE_NOT_FOUND", "TEMPLATE_NOT_FOUND"})
_NEVER_GONE: Final[frozenset[str]] = frozenset()


class Endpoint(Enum):
    """An endpoint: its label for metrics, class, priority, and the reasons that mean "gone"."""

    CLUSTERS = ("clusters", EndpointClass.CATALOGUE, Priority.READING, _NEVER_GONE)
    PRODUCTS = ("products", EndpointClass.CATALOGUE, Priority.READING, _NEVER_GONE)
    TEMPLATE = ("template", EndpointClass.CATALOGUE, Priority.READING, _TEMPLATE_GONE)
    TEMPLATES = ("templates", EndpointClass.CATALOGUE, Priority.READING, _NEVER_GONE)
    INSTANCE = ("instance", EndpointClass.INSTANCES, Priority.READING, _INSTANCE_GONE)
    LIST_INSTANCES = ("list_instances", EndpointClass.INSTANCES, Priority.READING, _NEVER_GONE)
    CREATE = ("create", EndpointClass.CREATE, Priority.WRITING, _NEVER_GONE)
    START = ("start", EndpointClass.LIFECYCLE, Priority.WRITING, _INSTANCE_GONE)
    RESTART = ("restart", EndpointClass.LIFECYCLE, Priority.WRITING, _INSTANCE_GONE)
    STOP = ("stop", EndpointClass.LIFECYCLE, Priority.ENDING, _INSTANCE_GONE)
    BALANCE = ("balance", EndpointClass.FIGURES, Priority.SHOWING, _NEVER_GONE)
    BILLS = ("bills", EndpointClass.FIGURES, Priority.SHOWING, _NEVER_GONE)
    DELETE = ("delete", EndpointClass.LIFECYCLE, Priority.ENDING, _INSTANCE_GONE)
    UTILIZATION = ("utilization", EndpointClass.FIGURES, Priority.SHOWING, _NEVER_GONE)

    def __init__(
        self,
        label: str,
        endpoint_class: EndpointClass,
        priority: Priority,
        gone_reasons: frozenset[str],
    ) -> None:
        self.label = label
        self.endpoint_class = endpoint_class
        self.priority = priority
        self.gone_reasons = gone_reasons

    @property
    def bypasses_breaker(self) -> bool:
        """Whether calls of the endpoint end spending; an open breaker then admits some calls."""
        return self.priority is Priority.ENDING

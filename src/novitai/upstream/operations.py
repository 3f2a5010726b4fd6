# SPDX-License-Identifier: Apache-2.0
"""The upstream operations in use, with their breaker, priority and "not found" reasons."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final

from novitai.upstream.limiter import Priority


class OperationClass(StrEnum):
    """A class of operations that tend to fail together and share a breaker."""

    CATALOGUE = "catalogue"
    INSTANCES = "instances"
    CREATE = "create"
    LIFECYCLE = "lifecycle"


_INSTANCE_GONE: Final = frozenset({"RESOURCE_NOT_FOUND", "INSTANCE_NOT_FOUND"})
_TEMPLATE_GONE: Final = frozenset({"RESOURCE_NOT_FOUND", "TEMPLATE_NOT_FOUND"})
_NEVER_GONE: Final[frozenset[str]] = frozenset()


class Operation(Enum):
    """An operation: its label for metrics, class, priority, and the reasons that mean "gone"."""

    CLUSTERS = ("clusters", OperationClass.CATALOGUE, Priority.READING, _NEVER_GONE)
    PRODUCTS = ("products", OperationClass.CATALOGUE, Priority.READING, _NEVER_GONE)
    TEMPLATE = ("template", OperationClass.CATALOGUE, Priority.READING, _TEMPLATE_GONE)
    TEMPLATES = ("templates", OperationClass.CATALOGUE, Priority.READING, _NEVER_GONE)
    INSTANCE = ("instance", OperationClass.INSTANCES, Priority.READING, _INSTANCE_GONE)
    LIST_INSTANCES = ("list_instances", OperationClass.INSTANCES, Priority.READING, _NEVER_GONE)
    CREATE = ("create", OperationClass.CREATE, Priority.WRITING, _NEVER_GONE)
    START = ("start", OperationClass.LIFECYCLE, Priority.WRITING, _INSTANCE_GONE)
    RESTART = ("restart", OperationClass.LIFECYCLE, Priority.WRITING, _INSTANCE_GONE)
    STOP = ("stop", OperationClass.LIFECYCLE, Priority.ENDING, _INSTANCE_GONE)
    DELETE = ("delete", OperationClass.LIFECYCLE, Priority.ENDING, _INSTANCE_GONE)

    def __init__(
        self,
        label: str,
        operation_class: OperationClass,
        priority: Priority,
        gone_reasons: frozenset[str],
    ) -> None:
        self.label = label
        self.operation_class = operation_class
        self.priority = priority
        self.gone_reasons = gone_reasons

    @property
    def is_insistent(self) -> bool:
        """Whether the operation ends spending; an open breaker then admits some calls."""
        return self.priority is Priority.ENDING

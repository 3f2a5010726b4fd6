# SPDX-License-Identifier: Apache-2.0
"""What is to become of an instance that has failed."""

from __future__ import annotations

from enum import StrEnum

from novitai.domain.instance import Instance, Origin
from novitai.domain.status import is_gone
from novitai.settings import FailedInstancePolicy


class ReapPlan(StrEnum):
    """What is to become of a failed instance; the event `instance.failed` says which."""

    NONE = "none"
    KEEP = "keep"
    STOP = "stop"
    DELETE = "delete"

    @property
    def acts(self) -> bool:
        """Whether there is anything to do."""
        return self in {ReapPlan.STOP, ReapPlan.DELETE}


def plan_reap(instance: Instance, policy: FailedInstancePolicy) -> ReapPlan:
    """Decide what becomes of an instance that has failed; an adopted one is always kept."""
    if instance.upstream_id is None or is_gone(instance):
        return ReapPlan.NONE
    if policy is FailedInstancePolicy.KEEP or instance.origin is Origin.ADOPTED:
        return ReapPlan.KEEP
    if policy is FailedInstancePolicy.STOP and instance.ever_ran:
        return ReapPlan.STOP
    return ReapPlan.DELETE

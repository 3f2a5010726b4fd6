# SPDX-License-Identifier: Apache-2.0
"""Actors: who caused a change, an API key or a part of novitai itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class System(StrEnum):
    """The parts of novitai that make changes of their own."""

    SYNC = "sync"
    """A listing of the account showed the change, and no operation had asked for it."""
    CLEANUP = "cleanup"
    """The policy for failed instances (`NOVITAI_FAILED_INSTANCE_POLICY`)."""
    CORRECTION = "correction"
    """The correction of a call that was sent too late."""
    LIMITS = "limits"
    """A limit of the instance."""
    AUTOSTOP = "autostop"
    """The instance was idle."""
    BUDGETS = "budgets"
    """A budget reached a threshold or was spent."""
    RECONCILIATION = "reconciliation"
    """The comparison of the ledger with Novita's bills."""
    WEBHOOKS = "webhooks"
    """The delivery of webhooks."""
    OPERATOR = "operator"
    """A person on the machine of the server, with `novitai doctor --confirm`."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who caused a change: an API key with its name at that time, or a part of novitai.

    Exactly one of `key_id` and `system` is set; `name` belongs to `key_id`.
    """

    key_id: str | None = None
    name: str | None = None
    system: System | None = None

    def view(self) -> dict[str, str]:
        """Return the actor as the API shows it: `{keyId, name}` or `{system}`."""
        if self.system is not None:
            return {"system": self.system.value}
        return {"keyId": self.key_id or "", "name": self.name or ""}


SYNC: Final = Actor(system=System.SYNC)
CLEANUP: Final = Actor(system=System.CLEANUP)
CORRECTION: Final = Actor(system=System.CORRECTION)
LIMITS: Final = Actor(system=System.LIMITS)
AUTOSTOP: Final = Actor(system=System.AUTOSTOP)
BUDGETS: Final = Actor(system=System.BUDGETS)
RECONCILIATION: Final = Actor(system=System.RECONCILIATION)
WEBHOOKS: Final = Actor(system=System.WEBHOOKS)
OPERATOR: Final = Actor(system=System.OPERATOR)


def actor_of(stored: Mapping[str, str]) -> Actor:
    """Return the actor whose `view` was stored."""
    if "system" in stored:
        return Actor(system=System(stored["system"]))
    return Actor(stored["keyId"], stored["name"])

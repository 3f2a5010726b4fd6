# SPDX-License-Identifier: Apache-2.0
"""The remedy after Novita refused a create: another product, a later retry, or none.

The reasons are those of upstream.md §1.2. An unknown reason is handled like missing stock,
for which retries also end.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Remedy(Enum):
    """What to try after a refusal."""

    TIME = auto()
    """No capacity now: try another candidate now, or the same one later."""
    OTHER_CANDIDATE = auto()
    """This product in this cluster does not suit the request: try another candidate."""
    NOTHING = auto()
    """Every candidate would be refused, now and later: the account or the request is at fault."""
    UNKNOWN = auto()
    """The reason is not in the table."""


_TIME: Final = (
    "INSUFFICIENT_RESOURCE",
    "MIGRATE_INSUFFICIENT_RESOURCE",
    "GPU_SPEC_USED",
    "CLUSTER_STATUS",
    "NODE_STATUS",
    "DEPENDENT_RESOURCE_STATE",
    "IMAGE_PREWARM_NO_NODES_AVAILABLE",
    # The product or the cluster was removed since it was listed; the next list is without it.
    "RESOURCE_NOT_FOUND",
)
_OTHER_CANDIDATE: Final = (
    "UNSUPPORTED_BILLING_MODE",
    "CUDA_VERSION_INCOMPATIBLE",
    "CUR_CLUSTER_NETWORK_STORAGE_NOT_SUPPORT",
)
_NOTHING: Final = (
    # Money.
    "BALANCE_NOT_ENOUGH",
    "EXPIRED_OR_BALANCE_NOT_ENOUGH",
    "NOT_ENOUGH_BALANCE",
    "DE_BALANCE_NOT_ENOUGH",
    "BUDGET_NOT_ENOUGH",
    "WALLET_NOT_FOUND",
    "WALLET_UNSUPPORT_RECHARGE_METHOD",
    # Quota.
    "CREATE_INSTANCE_LIMIT",
    "CREATE_GPU_NUM_LIMIT",
    "NETWORK_MAX_LIMIT",
    # The account.
    "BANNED_USER",
    "USER_NOT_FOUND",
    "USER_NOT_ACTIVATED",
    "PERMISSION_DENIED",
    # Image, command, template, and other parts that are the same for every candidate.
    "IMAGE_NOT_FOUND",
    "IMAGE_URL_OR_AUTH_ERROR",
    "IMAGE_TOO_LARGE",
    "INVALID_COMMAND_PARAM",
    "INVALID_PUBLIC_KEY",
    "VALIDATOR_PARAM",
    "INCORRECT_USER_SYNCER_REQUIRE_PARAMS",
    "TEMPLATE_NOT_FOUND",
    "TEMPLATE_IS_PRIVATE",
    "NETWORK_NOT_FOUND",
    "NETWORK_STORAGE_NOT_FOUND",
    "NETWORK_STORAGE_TOO_LARGE",
)
_REMEDIES: Final = {
    **dict.fromkeys(_TIME, Remedy.TIME),
    **dict.fromkeys(_OTHER_CANDIDATE, Remedy.OTHER_CANDIDATE),
    **dict.fromkeys(_NOTHING, Remedy.NOTHING),
}


def remedy(reason: str | None) -> Remedy:
    """Return the remedy for a refusal's reason."""
    return _REMEDIES.get(reason or "", Remedy.UNKNOWN)

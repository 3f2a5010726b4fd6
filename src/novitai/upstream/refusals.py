# SPDX-License-Identifier: Apache-2.0
"""What may help after Novita has refused a create: another product, time, or neither.

The words are those of upstream.md §1.2. A word that is not in the table says nothing, so it
is treated like a lack of stock, which ends as well.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final


class Remedy(Enum):
    """What may turn a refusal into a purchase."""

    TIME = auto()
    """GPUs or a machine are missing now: another candidate now, or the same one later."""
    OTHER_CANDIDATE = auto()
    """This product in this cluster will never do."""
    NOTHING = auto()
    """Every candidate is refused for it, now and later: the account or the request is at fault."""
    UNKNOWN = auto()
    """The word is not in the table."""


_TIME: Final = (
    "INSUFFICIENT_RESOURCE",
    "MIGRATE_INSUFFICIENT_RESOURCE",
    "GPU_SPEC_USED",
    "CLUSTER_STATUS",
    "NODE_STATUS",
    "DEPENDENT_RESOURCE_STATE",
    "IMAGE_PREWARM_NO_NODES_AVAILABLE",
    # The product or the cluster has gone since it was listed; the next list lacks it.
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
    # Image, command, template, and whatever else is the same for every candidate.
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
    """Look up what may help after a create was refused with a reason."""
    return _REMEDIES.get(reason or "", Remedy.UNKNOWN)

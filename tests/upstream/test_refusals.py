# SPDX-License-Identifier: Apache-2.0
"""The remedies after a refused create."""

from __future__ import annotations

import pytest

from novitai.upstream.refusals import Remedy, remedy


@pytest.mark.parametrize(
    ("reasons", "expected"),
    [
        ("INSUFFICIENT_RESOURCE GPU_SPEC_USED CLUSTER_STATUS NODE_STATUS", Remedy.TIME),
        ("RESOURCE_NOT_FOUND DEPENDENT_RESOURCE_STATE", Remedy.TIME),
        ("UNSUPPORTED_BILLING_MODE CUDA_VERSION_INCOMPATIBLE", Remedy.OTHER_CANDIDATE),
        ("BALANCE_NOT_ENOUGH EXPIRED_OR_BALANCE_NOT_ENOUGH NOT_ENOUGH_BALANCE", Remedy.NOTHING),
        ("DE_BALANCE_NOT_ENOUGH BUDGET_NOT_ENOUGH", Remedy.NOTHING),
        ("CREATE_INSTANCE_LIMIT CREATE_GPU_NUM_LIMIT", Remedy.NOTHING),
        ("IMAGE_NOT_FOUND IMAGE_URL_OR_AUTH_ERROR IMAGE_TOO_LARGE", Remedy.NOTHING),
        ("INVALID_COMMAND_PARAM VALIDATOR_PARAM TEMPLATE_NOT_FOUND", Remedy.NOTHING),
        ("OPERATION_LIMIT CONFLICT REQUEST A_WORD_OF_TOMORROW", Remedy.UNKNOWN),
    ],
)
def test_words(reasons: str, expected: Remedy) -> None:
    """Money, quota and invalid requests have no remedy; stock and machines may come back."""
    assert {remedy(reason) for reason in reasons.split()} == {expected}


@pytest.mark.parametrize("reason", [None, ""])
def test_no_word(reason: str | None) -> None:
    """A refusal without a reason has an unknown remedy."""
    assert remedy(reason) is Remedy.UNKNOWN

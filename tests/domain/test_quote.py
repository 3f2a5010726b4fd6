# SPDX-License-Identifier: Apache-2.0
"""Quotes: which requests a quote covers, and what the disk costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from novitai.domain.instance import BillingMode
from novitai.domain.quote import QuotedTerms, storage_per_day
from novitai.domain.requests import CreateRequest

REQUEST = CreateRequest("one", "gpu-basic", "tmpl-1", gpu_num=2, rootfs_size=80)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, []),
        ({"name": "two", "webhook_url": "https://x.example", "envs": {"A": "b"}}, []),
        ({"max_hourly_price": 1.0}, []),
        ({"product_name": "GPU-Basic"}, []),
        ({"region": "cn-hk-01", "region_fallback": True}, []),
        ({"product_name": "other"}, ["productName"]),
        ({"template_id": "TMPL-1"}, ["templateId"]),
        ({"gpu_num": 1}, ["gpuNum"]),
        ({"rootfs_size": 81}, ["rootfsSize"]),
        ({"region": "CN-HK-01"}, ["regionFallback"]),
        ({"region": "US-WEST-01", "region_fallback": True}, ["region"]),
        ({"billing_mode": BillingMode.SPOT}, ["billingMode"]),
        (
            {"gpu_num": 1, "product_name": "other", "billing_mode": BillingMode.SPOT},
            ["productName", "gpuNum", "billingMode"],
        ),
    ],
)
def test_which_requests_a_quote_covers(change: dict[str, Any], fields: list[str]) -> None:
    """Only product, template, GPUs, disk, region, mode and fallback must be as quoted."""
    quoted, asked = QuotedTerms.of(REQUEST), QuotedTerms.of(replace(REQUEST, **change))
    assert [name for name, _ in quoted.differences(asked)] == fields


def test_a_difference_names_what_was_quoted() -> None:
    """The value to send is that of the quote."""
    asked = QuotedTerms.of(replace(REQUEST, gpu_num=1))
    assert QuotedTerms.of(REQUEST).differences(asked) == [("gpuNum", 2)]


@pytest.mark.parametrize(("size", "price"), [(20, 0), (60, 0), (61, 500), (80, 10_000)])
def test_what_the_disk_costs(size: int, price: int) -> None:
    """60 GB are free; each further GB costs 0.005 USD a day."""
    assert storage_per_day(size) == price

# SPDX-License-Identifier: Apache-2.0
"""Tests of the HTTP side of quotes."""

from __future__ import annotations

from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.quote import VALID_FOR
from tests.api.application import CREATE
from tests.api.client import ApiProcess

BODY = {**CREATE, "gpuNum": 2, "rootfsSize": 80, "region": "US-WEST-01"}


async def test_the_answer_of_a_quote(api_process: ApiProcess) -> None:
    """201 with prices in USD for the whole instance, and the statement that nothing was bought."""
    answer = await api_process.call("POST", "/api/quotes", scope=Scope.READ, body=BODY)
    assert answer.status_code == 201
    quote = answer.json()
    assert quote["quoteId"].startswith("quote_")
    assert quote["expiresAt"] == iso(api_process.clock.now() + VALID_FOR)
    assert quote["candidates"][0] == {
        "productId": "gpu-basic.8c32g",
        "region": "US-WEST-01",
        "hourlyPrice": 0.6,
        "storagePerDay": 0.1,
        "estimatedReadySeconds": 240,
    }
    assert {one["reason"] for one in quote["refused"]} <= {"REGION_NOT_ALLOWED", "NOT_AVAILABLE"}
    assert quote["budgets"] == []
    assert quote["message"] == "Nothing was bought or reserved"


async def test_a_quote_is_used_by_its_id(api_process: ApiProcess) -> None:
    """A create may name the quote; a quote may not."""
    quote = (await api_process.call("POST", "/api/quotes", body=BODY)).json()
    named = {**BODY, "quoteId": quote["quoteId"]}
    assert (await api_process.call("POST", "/api/instances", body=named)).status_code == 201
    wrong = await api_process.call("POST", "/api/instances", body={**named, "gpuNum": 1})
    assert wrong.status_code == 400
    error = wrong.json()["error"]
    assert (error["code"], error["category"]) == ("QUOTE_MISMATCH", "VALIDATION_ERROR")
    assert error["details"] == [{"field": "gpuNum", "message": "Must be as quoted: 2"}]
    refused = await api_process.call("POST", "/api/quotes", body=named)
    assert refused.json()["error"]["details"][0]["field"] == "quoteId"
    late = await api_process.call(
        "POST", "/api/instances", body={**BODY, "quoteId": "quote_unknown"}
    )
    assert (late.status_code, late.json()["error"]["code"]) == (409, "QUOTE_EXPIRED")
    assert late.json()["error"]["retryable"] is False


async def test_a_quote_without_candidates_gives_the_reasons(api_process: ApiProcess) -> None:
    """A limit that no offer meets leaves no candidate, and says so for each offer."""
    body = {**BODY, "maxHourlyPrice": 0.01}
    quote = (await api_process.call("POST", "/api/quotes", body=body)).json()
    assert quote["candidates"] == []
    assert "PRICE_ABOVE_MAX" in {one["reason"] for one in quote["refused"]}

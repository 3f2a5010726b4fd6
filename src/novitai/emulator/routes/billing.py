# SPDX-License-Identifier: Apache-2.0
"""Balance and bills; these endpoints have other base paths (upstream.md §14)."""

from __future__ import annotations

from collections import deque
from typing import get_args

from novitai.emulator.billing import Cycle, Kind, period
from novitai.emulator.calling import Call, Reply, ok
from novitai.emulator.errors import Refusal, bills_too_fast, invalid
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Instance
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator
from novitai.emulator.wallet import OwnedPiece
from novitai.emulator.wire import BillRow, bill, user_of

LONGEST_SECONDS = 31 * 86_400
DAY_SECONDS = 86_400

_CYCLES: tuple[Cycle, ...] = get_args(Cycle)
_KINDS: tuple[Kind, ...] = get_args(Kind)
_CATEGORIES = (
    "summary",
    *_KINDS,
    "llm",
    "serverless",
    "gen_api",
    "cloud_sandbox",
    "llm_dedicated_endpoint",
    "web_search",
    "bare_metal",
)


def balance(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /openapi/v1/billing/balance/detail`; amounts are strings in 1/10000 USD."""
    left = emulator.books.left(call.now)
    return ok(
        {
            "availableBalance": str(left.balance + left.voucher),
            "cashBalance": str(max(0, left.balance)),
            "creditLimit": "0",
            "pendingCharges": str(emulator.books.pending(call.now, emulator.ever())),
            "outstandingInvoices": str(max(0, -left.balance)),
        }
    )


def bills(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`GET /openapi/v1/billing/bill/list`: the hours that begin in the window, by cycle."""
    _check_pace(emulator, call)
    cycle = next((each for each in _CYCLES if each == call.param("cycleType")), None)
    if cycle is None:
        raise Refusal(400, "INVALID_BILL_CYCLE", "invalid bill cycle")
    category = call.param("productCategory")
    if category not in _CATEGORIES:
        raise Refusal(400, "INVALID_PRODUCT_CATEGORY", "invalid product category")
    end = call.number("endTime") or int(call.now)
    begin = call.number("startTime") or end - DAY_SECONDS
    if not 0 <= end - begin <= LONGEST_SECONDS:
        raise invalid("startTime and endTime must be at most 31 days apart")
    rows: dict[tuple[object, ...], BillRow] = {}
    for owned in emulator.books.billed(call.now, begin * 1000, end * 1000):
        instance = emulator.instance_or_none(owned.owner)
        if instance is not None and _wanted(emulator, call, category, instance, owned):
            shown = None if category == "summary" else instance
            _add(rows, cycle, shown, owned)
    user = user_of(emulator.owner(call.caller))
    return ok({"bills": [bill(row, user) for row in rows.values()]})


def _check_pace(emulator: Emulator, call: Call) -> None:
    """Refuse a list that comes too soon after others of the same key; real time counts."""
    limit = emulator.settings.bill_lists_per_minute
    if limit <= 0:
        return
    now = emulator.clock.real()
    recent = emulator.recent_bill_lists.setdefault(call.caller, deque())
    while recent and recent[0] <= now - 60:
        recent.popleft()
    if len(recent) >= limit:
        raise bills_too_fast()
    recent.append(now)


def _wanted(
    emulator: Emulator, call: Call, category: str, instance: Instance, owned: OwnedPiece
) -> bool:
    kind = owned.piece.span.kind
    return (
        emulator.owns(call.caller, instance)
        and category in {"summary", kind}
        and call.param("category") in {"", kind}
        and call.param("ownerId") in {"", instance.id}
        and call.param("productName").lower() in instance.product_name.lower()
    )


def _add(
    rows: dict[tuple[object, ...], BillRow],
    cycle: Cycle,
    instance: Instance | None,
    owned: OwnedPiece,
) -> None:
    """Add a piece to the row of its period, instance, kind and price."""
    span = owned.piece.span
    begin, end = period(cycle, owned.piece.hour)
    price = span.unit_price if instance is not None else 0
    key = (begin, owned.owner if instance is not None else "", span.kind, price)
    row = rows.setdefault(key, BillRow(begin // 1000, end // 1000, instance, span.kind, price))
    row.quantity_ms += span.quantity * owned.piece.milliseconds
    row.amount += owned.piece.amount
    row.voucher += owned.voucher


ROUTES: RouteTable = {
    ("GET", "/openapi/v1/billing/balance/detail"): balance,
    ("GET", "/openapi/v1/billing/bill/list"): bills,
}

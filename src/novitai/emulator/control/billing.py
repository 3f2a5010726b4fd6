# SPDX-License-Identifier: Apache-2.0
"""Shows the exact truth behind the bills, without their delay and rounding."""

from __future__ import annotations

from novitai.emulator.billing import EXACT_PER_UNIT, BilledSpan, exact, units
from novitai.emulator.calling import JsonObject
from novitai.emulator.control.endpoint import Context, Endpoint, Nothing, endpoint
from novitai.emulator.instances import Instance
from novitai.emulator.metering import milliseconds


def account(context: Context, _given: Nothing) -> JsonObject:
    """Show what is left of balance and voucher, and the exact sums of all instances."""
    emulator = context.emulator
    now = emulator.clock.now()
    left = emulator.books.left(now)
    return {
        "now": now,
        "exactPerUnit": EXACT_PER_UNIT,
        "billsKnownUntil": left.after / 1000,
        "balance": left.balance,
        "voucher": left.voucher,
        "pending": emulator.books.pending(now, emulator.ever()),
        "instances": [_sums(context, each, now) for each in emulator.ever()],
    }


def instance(context: Context, _given: Nothing) -> JsonObject:
    """Show the exact sums of an instance up to now, with its spans."""
    found, now = context.instance(), context.emulator.clock.now()
    meter = context.emulator.books.meter(found, now)
    return {
        **_sums(context, found, now),
        "exactPerUnit": EXACT_PER_UNIT,
        "starts": meter.starts,
        "stops": meter.stops,
        "spans": [_span(span) for line in meter.lines for span in line],
    }


def _sums(context: Context, record: Instance, now: float) -> JsonObject:
    books = context.emulator.books
    meter, until, known = books.meter(record, now), milliseconds(now), books.known(now)
    return {
        "id": record.id,
        "name": record.name,
        "now": now,
        "gpuExact": exact(meter.gpu, until),
        "storageExact": exact(meter.storage, until),
        "units": sum(units(line, until) for line in meter.lines),
        "billedUnits": sum(units(line, known) for line in meter.lines),
        "billing": meter.runs,
        "diskPurged": meter.purged,
    }


def _span(span: BilledSpan) -> JsonObject:
    return {
        "kind": span.kind,
        "begin": span.begin / 1000,
        "end": span.end / 1000,
        "quantity": span.quantity,
        "unitPrice": span.unit_price,
        "exact": span.exact(span.end),
    }


ENDPOINTS: list[Endpoint] = [
    endpoint("GET", "/billing", Nothing, account),
    endpoint("GET", "/instances/{id}/billing", Nothing, instance),
]

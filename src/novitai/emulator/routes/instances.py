# SPDX-License-Identifier: Apache-2.0
"""Getting and listing instances (docs/upstream.md §5)."""

from __future__ import annotations

from novitai.emulator.calling import Call, Reply, ok
from novitai.emulator.errors import invalid
from novitai.emulator.faults import ListFault
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Instance, phase
from novitai.emulator.lifecycle import is_visible
from novitai.emulator.routes.creating import create
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

KEPT_AFTER_REMOVAL = 86_400.0
"""Virtual seconds for which a removed instance stays at hand, for lists that lag."""

NO_FAULT = ListFault()


def get(emulator: Emulator, rows: Rows, call: Call) -> Reply:
    """`GET /gpu/instance`; the id may also come in a body (docs/upstream.md §5.1)."""
    instance_id = call.param("instanceId") or call.body.get("instanceId")
    if not isinstance(instance_id, str) or not instance_id:
        raise invalid("instanceId is required")
    instance = emulator.instance(instance_id, call.now, call.caller)
    return ok(rows.json(instance, call.now, call.base_url))


def list_all(emulator: Emulator, rows: Rows, call: Call) -> Reply:
    """`GET /gpu/instances`: newest first, pages from 0 or 1, filters by name, product, status."""
    offset, size = call.page()
    fault = emulator.faults.for_list() or NO_FAULT
    matching = _matching(emulator, rows, call, fault)
    page = matching[offset : offset + size]
    if fault.lag:
        then = call.now - fault.lag
        shown = [rows.make(each, phase(each, then), then, call.base_url) for each in page]
    else:
        shown = [rows.json(each, call.now, call.base_url) for each in page]
    return ok({"instances": shown, "total": max(0, len(matching) + fault.total_delta)})


def _matching(emulator: Emulator, rows: Rows, call: Call, fault: ListFault) -> list[Instance]:
    """The instances that the list shows, those of the other pages included."""
    name, product = call.param("name").lower(), call.param("productName").lower()
    statuses = frozenset(filter(None, call.param("status").split(",")))
    linger = emulator.settings.removed_linger_seconds
    owner = emulator.owner(call.caller)
    at = call.now - fault.lag
    matching, retired = [], []
    for instance in emulator.newest_first():
        seen = rows.seen(instance, at)
        if not is_visible(instance, seen, at, linger):
            if call.now > instance.removed_at + linger + KEPT_AFTER_REMOVAL:
                retired.append(instance)
            continue
        if owner is not None and instance.account != owner:
            continue
        if (
            (name and name not in instance.name.lower())
            or (product and product not in instance.product_name.lower())
            or (statuses and seen.status not in statuses)
        ):
            continue
        matching.append(instance)
    if retired:
        emulator.retire(retired)
        rows.forget([each.id for each in retired])
    if fault.omit or fault.repeat:
        return _distorted(matching, fault)
    return matching


def _distorted(matching: list[Instance], fault: ListFault) -> list[Instance]:
    """With rows left out and shown twice; the length, and with it `total`, follows."""
    shown = []
    for instance in matching:
        if fault.omits(instance):
            continue
        shown.append(instance)
        if fault.repeats(instance):
            shown.append(instance)
    return shown


ROUTES: RouteTable = {
    ("GET", "/gpu/instance"): get,
    ("GET", "/gpu/instances"): list_all,
    ("POST", "/gpu/instance/create"): create,
}

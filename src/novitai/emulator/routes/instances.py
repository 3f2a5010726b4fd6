# SPDX-License-Identifier: Apache-2.0
"""Get and list instances (upstream.md §5)."""

from __future__ import annotations

from itertools import chain

from novitai.emulator.calling import Call, Reply, ok
from novitai.emulator.distorting import distorted, foreign, spoiled, totalled, window
from novitai.emulator.errors import invalid
from novitai.emulator.faults import ListFault
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Instance, phase
from novitai.emulator.lifecycle import is_visible
from novitai.emulator.routes.creating import create
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator

KEPT_AFTER_REMOVAL = 86_400.0
"""Virtual seconds for which a removed instance is kept for lists with a lag."""

NO_FAULT = ListFault()


def get(emulator: Emulator, rows: Rows, call: Call) -> Reply:
    """`GET /gpu/instance`; the ID may also be sent in a body (upstream.md §5.1)."""
    instance_id = call.param("instanceId") or call.body.get("instanceId")
    if not isinstance(instance_id, str) or not instance_id:
        raise invalid("instanceId is required")
    instance = emulator.instance(instance_id, call.now, call.caller)
    row = rows.json(instance, call.now, call.base_url)
    spoil = emulator.faults.for_get(instance)
    return ok(spoiled(row, spoil) if spoil is not None else row)


def list_all(emulator: Emulator, rows: Rows, call: Call) -> Reply:
    """`GET /gpu/instances`: newest first; pages start at 0 or 1; filters: name, product, status."""
    offset, size = call.page()
    fault = emulator.faults.for_list(call.query) or NO_FAULT
    matching = _matching(emulator, rows, call, fault)
    offset, size = window(len(matching), offset, size, fault)
    page = matching[offset : offset + size]
    if fault.lag:
        then = call.now - fault.lag
        shown = [rows.make(each, phase(each, then), then, call.base_url) for each in page]
    else:
        shown = [rows.json(each, call.now, call.base_url) for each in page]
    if fault.spoil is not None:
        added = {each.id for each in foreign(fault.foreign_rows)}
        shown = [
            spoiled(row, fault.spoil) if each.id in added or fault.spoil.rows.has(each) else row
            for each, row in zip(page, shown, strict=True)
        ]
    return ok({"instances": shown, **totalled(len(matching), fault)})


def _matching(emulator: Emulator, rows: Rows, call: Call, fault: ListFault) -> list[Instance]:
    """Return the instances of all pages of the list."""
    name, product = _name_filter(emulator, call), call.param("productName").lower()
    if name is None:
        return []
    statuses = frozenset(filter(None, call.param("status").split(",")))
    linger = emulator.settings.removed_linger_seconds
    owner = emulator.owner(call.caller)
    at = call.now - fault.lag
    matching, retired = [], []
    for instance in chain(foreign(fault.foreign_rows), emulator.newest_first()):
        seen = rows.seen(instance, at)
        if not is_visible(instance, seen, at, linger):
            if call.now > instance.removed_at + linger + KEPT_AFTER_REMOVAL:
                retired.append(instance)
            continue
        if owner is not None and instance.account and instance.account != owner:
            continue  # rows that a fault adds have no account and are visible to every caller
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
    return distorted(matching, fault) if fault.omit or fault.repeat else matching


def _name_filter(emulator: Emulator, call: Call) -> str | None:
    """Return the lower-case text that names must contain; None if nothing can match."""
    name = call.param("name").lower()
    match emulator.settings.name_filter:
        case "works":
            return name
        case "ignored":
            return ""
        case "empty":
            return None if name else ""


ROUTES: RouteTable = {
    ("GET", "/gpu/instance"): get,
    ("GET", "/gpu/instances"): list_all,
    ("POST", "/gpu/instance/create"): create,
}

# SPDX-License-Identifier: Apache-2.0
"""Operations on an instance: start, stop, restart, delete (upstream.md §6)."""

from __future__ import annotations

from novitai.emulator import lifecycle
from novitai.emulator.calling import Call, Reply, ok, text
from novitai.emulator.errors import no_capacity, not_found, purged_disk
from novitai.emulator.gate import RouteTable
from novitai.emulator.instances import Instance, Status, phase
from novitai.emulator.rows import Rows
from novitai.emulator.state import Emulator


def start(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/start`."""
    instance = wanted(emulator, call)
    lifecycle.require(instance, call.now, Status.EXITED)
    emulator.charge("BALANCE_NOT_ENOUGH")
    if emulator.books.meter(instance, call.now).purged:
        raise purged_disk()
    if not emulator.capacity("start", instance):
        raise no_capacity()
    outcome = emulator.outcome("start", instance)
    started = lifecycle.start(instance, call.now, emulator.pace, outcome)
    emulator.put(started, call.now)
    return done(emulator, started, call.now)


def stop(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/stop`."""
    instance = wanted(emulator, call)
    lifecycle.require(instance, call.now, Status.RUNNING)
    outcome = emulator.outcome("stop", instance)
    stopped = lifecycle.stop(instance, call.now, emulator.pace, outcome)
    emulator.put(stopped, call.now)
    return done(emulator, stopped, call.now)


def restart(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/restart`."""
    instance = wanted(emulator, call)
    lifecycle.require(instance, call.now, Status.RUNNING)
    outcome = emulator.outcome("restart", instance)
    restarted = lifecycle.restart(instance, call.now, emulator.pace, outcome)
    emulator.put(restarted, call.now)
    return done(emulator, restarted, call.now)


def delete(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """`POST /gpu/instance/delete`; any status, but not before the end of a monthly term."""
    instance = wanted(emulator, call)
    if call.now < instance.created_at + emulator.settings.delete_not_found_seconds:
        raise not_found("instance")
    outcome = emulator.outcome("delete", instance)
    emulator.put(
        lifecycle.remove(instance, call.now, emulator.pace, call.caller, outcome), call.now
    )
    return done(emulator, instance, call.now)


def accepted(emulator: Emulator, _rows: Rows, call: Call) -> Reply:
    """Reply to an operation that is carried out later; the reply does not depend on its result."""
    return done(emulator, wanted(emulator, call), call.now)


def wanted(emulator: Emulator, call: Call) -> Instance:
    """Return the instance that the call names.

    Raises:
        Refusal: The ID is missing, or no such instance exists in the caller's account.
    """
    return emulator.instance(text(call.body, "instanceId", least=1), call.now, call.caller)


def done(emulator: Emulator, instance: Instance, now: float) -> Reply:
    """Return the reply of an operation; clients must not rely on it (upstream.md §6)."""
    match emulator.settings.lifecycle_reply:
        case "empty":
            return Reply(200, b"", None)
        case "state":
            return ok({"instanceId": instance.id, "state": phase(instance, now).status})
        case "object":
            return ok({})


ROUTES: RouteTable = {
    ("POST", "/gpu/instance/start"): start,
    ("POST", "/gpu/instance/stop"): stop,
    ("POST", "/gpu/instance/restart"): restart,
    ("POST", "/gpu/instance/delete"): delete,
}

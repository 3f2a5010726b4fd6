# SPDX-License-Identifier: Apache-2.0
"""`novitai start`, `stop`, `restart`, `delete`, `keep`, `limits`: change instances.

Each says what it saves, and what goes on costing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.client.failures import CommandFailed, ExitCode, UsageFailed, told
from novitai.cli.client.instances import (
    InstanceName,
    InstanceNames,
    accrued,
    autostop_of,
    limits_of,
    stops,
)
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.lookup import complete_names, find_id, find_instance, is_id
from novitai.cli.client.wording import clean, count, hourly, local, minutes, until, usd, word
from novitai.cli.output import complain

if TYPE_CHECKING:
    from novitai_client.models.instances import ActionResult, Instance
    from novitai_client.requests import ChangeFields, LimitsFields

NO_VALUE: Final = "none"
_BILLED: Final = frozenset({"starting", "running", "stopping", "migrating"})

app = typer.Typer()

Act = Callable[[Invocation, "Instance"], "ActionResult"]
Say = Callable[[Invocation, "Instance"], str]


@command(app, "start", schema="AcceptedOperation", example="novitai start trainer")
def start(invocation: Invocation, names: InstanceNames) -> int:
    """Start stopped instances. Their addresses and their price may change."""
    return _each(
        invocation,
        names,
        "start",
        lambda run, one: run.client.instances.start(one.id),
        lambda _, one: f"costs {hourly(one.hourly_price)} while it runs",
    )


@command(
    app,
    "stop",
    asks=True,
    schema="AcceptedOperation, or StopOverview with --all",
    example=["novitai stop trainer", "novitai stop --all --yes"],
)
def stop(
    invocation: Invocation,
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="ID|NAME...", help="The instances.", autocompletion=complete_names),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All running instances.")] = False,
) -> int:
    """Stop instances. Their disks are kept, and may go on costing."""
    if everything == bool(names):
        raise UsageFailed("name the instances to stop, or give --all")
    if everything:
        return _stop_all(invocation)
    return _each(
        invocation,
        names or [],
        "stop",
        lambda run, one: run.client.instances.stop(one.id),
        lambda run, one: f"{_saves(one)}; {_disk_goes_on(run, one)}",
    )


@command(app, "restart", schema="AcceptedOperation", example="novitai restart trainer")
def restart(invocation: Invocation, names: InstanceNames) -> int:
    """Restart running instances."""
    return _each(
        invocation,
        names,
        "restart",
        lambda run, one: run.client.instances.restart(one.id),
        lambda _, one: f"goes on costing {hourly(one.hourly_price)}",
    )


@command(
    app,
    "delete",
    asks=True,
    schema="AcceptedOperation",
    example="novitai delete trainer --yes",
)
def delete(invocation: Invocation, names: InstanceNames) -> int:
    """Delete instances and their disks, for good. On a terminal it asks first."""
    if not invocation.curl:
        shown = ", ".join(clean(name) for name in names)
        invocation.confirm(f"Delete {shown}, with all data on it?")
    return _each(
        invocation,
        names,
        "delete",
        lambda run, one: run.client.instances.delete(one.id),
        lambda _, one: f"{_saves(one)}; {_has_cost(one)}",
    )


def _each(invocation: Invocation, names: Sequence[str], verb: str, act: Act, say: Say) -> int:
    """Act on each instance; a failure of one does not keep the others from it."""
    from novitai_client.errors import NovitaiError

    if invocation.curl:
        _show_request(invocation, names[0], verb)
    invocation.name_server()
    codes: list[int] = []
    for name in names:
        invocation.action = f"Whether it had an effect on {clean(name)} is not known."
        try:
            instance = find_instance(invocation, name)
            consequence = "" if invocation.as_json else say(invocation, instance)
            done = act(invocation, instance)
        except (NovitaiError, CommandFailed) as error:
            if len(names) == 1:
                raise
            failure = error if isinstance(error, CommandFailed) else told(error)
            complain(clean(f"{name}: {failure.message}"))
            codes.append(failure.code)
            continue
        same = " (nothing to do)" if done.operation_id is None else ""
        text = f"{instance.name}  {done.status}{same}"
        invocation.result(done, text if same or not consequence else f"{text}  {consequence}")
    if codes:
        invocation.note(f"{len(codes)} of {count(len(names), 'instance')} failed")
    return codes[0] if codes else ExitCode.DONE


def _show_request(invocation: Invocation, name: str, verb: str) -> None:
    """Show the one request that acts; a look-up of the name would come first otherwise."""
    instances = invocation.client.instances
    by_verb: dict[str, Callable[..., object]] = {
        "start": instances.start,
        "stop": instances.stop,
        "restart": instances.restart,
        "delete": instances.delete,
    }
    act = by_verb[verb]
    if is_id(name):
        act(name)
    else:
        act(name=name)


def _saves(one: Instance) -> str:
    if one.status not in _BILLED or one.hourly_price is None:
        return (
            "saves nothing more an hour: it is not billed"
            if one.status not in _BILLED
            else ("ends its hourly price, which is unknown")
        )
    return f"saves {hourly(one.hourly_price)}"


def _has_cost(one: Instance) -> str:
    spent = accrued(one)
    told_ = "nothing goes on costing"
    return told_ if spent is None else f"{told_}; it has cost {usd(spent)} in all"


def _disk_goes_on(invocation: Invocation, one: Instance) -> str:
    """Return what the disk of a stopped instance costs, from the ledger."""
    from novitai_client.errors import NovitaiError

    with suppress(NovitaiError):
        spans = invocation.client.instances.cost(one.id).spans
        rates = [
            span.hourly_rate for span in spans if span.kind == "disk" and span.ended_by is None
        ]
        rate = rates[-1] if rates else 0.0
        if rate is not None:
            return (
                f"its disk goes on costing {usd(rate * 24)} a day until it is deleted"
                if rate
                else "its disk costs nothing"
            )
    return "its disk may go on costing until it is deleted"


def _stop_all(invocation: Invocation) -> int:
    if invocation.curl:
        invocation.client.instances.stop_all()
    running = list(invocation.client.instances.list(status="running"))
    rate = sum(one.hourly_price or 0 for one in running)
    invocation.name_server()
    if running:
        invocation.confirm(
            f"Stop {count(len(running), 'running instance')} on {invocation.server}? "
            f"That saves {hourly(rate)}."
        )
    invocation.action = "Whether it had an effect is not known: `novitai ls` shows it."
    result = invocation.client.instances.stop_all()
    names = {one.id: one.name for one in running}
    stopping = [names.get(one.instance_id, one.instance_id) for one in result.operations]
    invocation.result(
        result,
        f"stopping {', '.join(stopping)}" if stopping else "there is nothing to stop",
    )
    for one in result.skipped:
        if one.reason != "ALREADY_STOPPED":
            invocation.note(
                f"{names.get(one.instance_id, one.instance_id)}: not stopped: {one.reason}"
            )
    if stopping:
        invocation.note(
            f"saves {hourly(rate)}; disks above their free size go on costing until their "
            "instances are deleted"
        )
    return ExitCode.DONE


@command(app, "keep", schema="Instance", example="novitai keep trainer 1h")
def keep(
    invocation: Invocation,
    name: InstanceName,
    time: Annotated[
        str, typer.Argument(metavar="DURATION", help="How much later it stops: 30m, 1h, 2d.")
    ],
) -> None:
    """Put off the stop by a run limit, a time or auto-stop. Never that by money or a budget."""
    length = minutes(time, "DURATION")
    kept = invocation.client.instances.keep(find_id(invocation, name), length)
    invocation.name_server()
    goes_on = f"goes on costing {hourly(kept.hourly_price)}"
    end = "no limit stops it" if kept.stops_at is None else f"stops {stops(kept)}"
    at = "" if kept.stops_at is None else f" ({local(kept.stops_at)})"
    invocation.result(kept, f"{kept.name}  {end}{at}  {goes_on}")


@command(
    app,
    "limits",
    schema="Instance",
    example=["novitai limits trainer", "novitai limits trainer --max-spend 20 --max-run none"],
)
def limits(
    invocation: Invocation,
    name: InstanceName,
    max_spend: Annotated[
        str | None,
        typer.Option(
            metavar="USD|none", help="It is stopped once it has cost so much in its life."
        ),
    ] = None,
    max_run: Annotated[
        str | None, typer.Option(metavar="DURATION|none", help="The longest run, such as 8h.")
    ] = None,
    stop_at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|none", help="When it must have stopped, such as 2027-01-31T18:00+01:00."
        ),
    ] = None,
    on_limit: Annotated[
        str | None, typer.Option(metavar="stop|delete", help="Whether a limit stops or deletes it.")
    ] = None,
    delete_after: Annotated[
        str | None,
        typer.Option(
            "--delete-after-stopped",
            metavar="DURATION|none",
            help="How long after its stop it is deleted, with its disk.",
        ),
    ] = None,
    idle: Annotated[
        str | None,
        typer.Option(metavar="DURATION|none", help="Stop it after so long without use."),
    ] = None,
    protect: Annotated[
        str | None,
        typer.Option(metavar="REASON|none", help="Why it must not be deleted."),
    ] = None,
) -> None:
    """Show the limits of an instance, or change some of them; `none` removes one."""
    changes: ChangeFields = {}
    wanted: LimitsFields = {}
    if max_spend is not None:
        wanted["max_spend"] = _number(max_spend, "--max-spend")
    if max_run is not None:
        wanted["max_run_minutes"] = _minutes(max_run, "--max-run")
    if stop_at is not None:
        wanted["stop_at"] = _time(stop_at, "--stop-at")
    if on_limit is not None:
        wanted["on_limit"] = word(on_limit)
    if delete_after is not None:
        wanted["delete_after_stopped_minutes"] = _minutes(delete_after, "--delete-after-stopped")
    if wanted:
        changes["limits"] = wanted
    if idle is not None:
        length = _minutes(idle, "--idle")
        changes["auto_stop"] = None if length is None else {"idle_minutes": length}
    if protect is not None:
        changes["protected"] = None if protect.lower() == NO_VALUE else {"reason": protect}
    if changes:
        instance = invocation.client.instances.update(find_id(invocation, name), **changes)
    else:
        instance = find_instance(invocation, name)
    invocation.show(instance, lambda: _shown(instance))


def _shown(one: Instance) -> list[tuple[str, object]]:
    stop_text = "no limit stops it" if one.stops_at is None else until(one.stops_at)
    if one.stops_at is not None:
        stop_text += f", {local(one.stops_at)} ({one.stop_reason})"
    return [
        ("name", one.name),
        ("status", one.status),
        ("limits", limits_of(one) or NO_VALUE),
        ("auto-stop", autostop_of(one) or NO_VALUE),
        ("protected", NO_VALUE if one.protected is None else one.protected.reason),
        ("stops", stop_text),
        ("cost so far", usd(accrued(one))),
        ("price", None if one.hourly_price is None else hourly(one.hourly_price)),
    ]


def _minutes(text: str, name: str) -> int | None:
    return None if text.lower() == NO_VALUE else minutes(text, name)


def _number(text: str, name: str) -> float | None:
    if text.lower() == NO_VALUE:
        return None
    try:
        return float(text.removeprefix("$"))
    except ValueError:
        raise UsageFailed(f"{name}: {clean(text)!r} is not a number of USD") from None


def _time(text: str, name: str) -> datetime | None:
    """Read a time; without an offset it is of this machine's time zone."""
    if text.lower() == NO_VALUE:
        return None
    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError:
        raise UsageFailed(
            f"{name}: {clean(text)!r} is not a time such as 2027-01-31T18:00+01:00"
        ) from None

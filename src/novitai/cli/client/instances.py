# SPDX-License-Identifier: Apache-2.0
"""`novitai ls`, `ps`, `get`: which instances there are, what they cost, and when they stop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.lookup import complete_names, find_instance
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import count, hourly, local, pairs, span, until, usd, word

if TYPE_CHECKING:
    from novitai_client.models.instances import Instance

_BILLED: Final = frozenset({"starting", "running", "stopping", "migrating"})
_STYLES: Final = {"running": "green", "failed": "red", "terminated": "dim", "released": "dim"}
_WORKING: Final = "yellow"
_QUIET: Final = frozenset({"stopped"})

app = typer.Typer()

InstanceName = Annotated[
    str,
    typer.Argument(metavar="ID|NAME", help="The instance.", autocompletion=complete_names),
]
InstanceNames = Annotated[
    list[str],
    typer.Argument(metavar="ID|NAME...", help="The instances.", autocompletion=complete_names),
]


def _style(instance: Instance) -> str:
    status = instance.status
    return _STYLES.get(status, "" if status in _QUIET else _WORKING)


def stops(instance: Instance) -> str:
    """Return when a limit stops or deletes an instance, and which one."""
    if instance.unenforced:
        return f"{instance.stop_reason}: NOT ENFORCED"
    return "-" if instance.stops_at is None else until(instance.stops_at)


def accrued(instance: Instance) -> float | None:
    """Return what an instance has cost for certain."""
    return None if instance.cost is None else instance.cost.accrued


COLUMNS: Final[Sequence[ListColumn[Instance]]] = (
    ListColumn("name", lambda one: one.name),
    ListColumn("status", lambda one: one.status, style=_style, whole=True),
    ListColumn("product", lambda one: f"{one.gpu_num} x {one.product_name}"),
    ListColumn("region", lambda one: one.region),
    ListColumn("$/h", lambda one: usd(one.hourly_price), right=True),
    ListColumn("cost", lambda one: usd(accrued(one)), right=True),
    ListColumn("stops", stops, whole=True),
    ListColumn("id", lambda one: one.id, extra=True, whole=True),
    ListColumn("mode", lambda one: one.billing_mode, extra=True),
    ListColumn("created", lambda one: local(one.created_at), extra=True),
    ListColumn("by", lambda one: one.created_by and one.created_by.name, extra=True),
    ListColumn("tags", lambda one: tags(one.tags), extra=True),
    ListColumn("template", lambda one: one.template_id, extra=True),
    ListColumn("reason", lambda one: one.stop_reason, extra=True),
    ListColumn("upstream", lambda one: one.upstream_id, extra=True),
    ListColumn("error", lambda one: one.error and one.error.code, extra=True),
)


def tags(found: Mapping[str, str]) -> str:
    """Return tags as they are given on the command line."""
    return ",".join(f"{name}={value}" for name, value in found.items())


@command(
    app,
    "ls",
    schema="InstanceList",
    lists=True,
    example=[
        "novitai ls",
        "novitai ls --status running --columns name,id,$/h",
        "novitai ls --json",
    ],
)
@command(app, "ps", schema="InstanceList", lists=True, example="novitai ps -a")
def ls(
    invocation: Invocation,
    everything: Annotated[
        bool, typer.Option("--all", "-a", help="Also instances that are gone.")
    ] = False,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help="Only instances with this status.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Only instances with this tag; repeatable."),
    ] = None,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Stay, and show each change as it happens.")
    ] = False,
) -> None:
    """List instances: status, price, cost, and when they stop; below them the sums."""
    wanted = pairs(tag, "--tag")
    if watch and not invocation.curl:
        from novitai.cli.client.watching import watch_instances

        watch_instances(invocation, everything=everything, status=status, tags=wanted)
        return
    rows = invocation.client.instances.list(
        status=word(status),
        tags=wanted,
        include_terminated=everything or None,
    )
    found = invocation.show_list(COLUMNS, rows, "instances", empty="there are no instances")
    if found:
        invocation.note(sums(found))


def sums(instances: Sequence[Instance]) -> str:
    """Return the line below a list: how many, what they cost an hour, and what they have cost."""
    burning = [one for one in instances if one.status in _BILLED]
    rate = sum(one.hourly_price or 0 for one in burning)
    spent = sum(accrued(one) or 0 for one in instances)
    unknown = sum(1 for one in instances if one.cost is not None and one.cost.unknown)
    doubt = f"; the price of {count(unknown, 'instance')} is unknown" if unknown else ""
    running = f"{len(burning)} billed at {usd(rate)} an hour" if burning else "none is billed"
    return f"{count(len(instances), 'instance')}, {running}, {usd(spent)} so far{doubt}"


@command(
    app, "get", schema="Instance", example=["novitai get trainer", "novitai get trainer --json"]
)
def get(invocation: Invocation, name: InstanceName) -> None:
    """Show an instance: status, price, limits, addresses, and why it failed if it did."""
    instance = find_instance(invocation, name)
    invocation.show(instance, lambda: described(instance))


def described(one: Instance) -> list[tuple[str, object]]:
    """Return the facts about an instance, for people."""
    addresses = one.connection_details
    return [
        ("id", one.id),
        ("name", one.name),
        ("status", _status(one)),
        ("error", one.error and f"{one.error.message} ({one.error.code})"),
        ("operation", one.operation and f"{one.operation.kind}, {one.operation.phase}"),
        ("product", f"{one.gpu_num} x {one.product_name}"),
        ("region", one.region),
        ("mode", one.billing_mode),
        ("template", one.template_id),
        ("disk", None if one.rootfs_size is None else f"{one.rootfs_size} GB"),
        ("price", None if one.hourly_price is None else hourly(one.hourly_price)),
        ("cost", _cost(one)),
        ("stops", _stops(one)),
        ("limits", limits_of(one)),
        ("auto-stop", autostop_of(one)),
        ("protected", one.protected and one.protected.reason),
        ("tags", tags(one.tags)),
        ("created", local(one.created_at)),
        ("created by", one.created_by and one.created_by.name),
        ("running since", local(one.started_at) if one.status == "running" else None),
        ("reclaimed", local(one.spot_reclaim_at)),
        ("ssh", addresses and addresses.ssh and f"novitai ssh {one.name}"),
        ("jupyter", addresses and addresses.jupyter),
        ("terminal", addresses and addresses.web_terminal),
        *((f"port {port.port}", port.endpoint) for port in one.port_mappings),
    ]


def _status(one: Instance) -> str:
    upstream = one.upstream_status
    return f"{one.status} (at Novita: {upstream})" if upstream else one.status


def _cost(one: Instance) -> str | None:
    cost = one.cost
    if cost is None:
        return None
    if cost.accrued is None or cost.accrued_at_most is None:
        return "unknown, because a price is unknown"
    most = cost.accrued_at_most
    range_ = usd(cost.accrued)
    if usd(most) != range_:
        range_ = f"{range_} to {usd(most)}"
    return f"{range_}, as of {local(cost.as_of)}"


def _stops(one: Instance) -> str | None:
    if one.unenforced:
        return f"{one.stop_reason} is due and has no effect"
    if one.stops_at is None:
        return "no limit stops it" if one.status in _BILLED else one.stop_reason
    return f"{until(one.stops_at)}, {local(one.stops_at)} ({one.stop_reason})"


def limits_of(one: Instance) -> str | None:
    """Return the limits of an instance; None if there are none."""
    limits = one.limits
    if limits is None:
        return None
    run, gone = limits.max_run_minutes, limits.delete_after_stopped_minutes
    parts = [
        "" if limits.max_spend is None else f"at most {usd(limits.max_spend)}",
        "" if run is None else f"runs at most {span(run * 60)}",
        "" if limits.stop_at is None else f"until {local(limits.stop_at)}",
        f"then {limits.on_limit}",
        "" if gone is None else f"deleted {span(gone * 60)} after it stopped",
    ]
    return ", ".join(filter(None, parts))


def autostop_of(one: Instance) -> str | None:
    """Return the auto-stop of an instance; None if there is none."""
    auto = one.auto_stop
    if auto is None:
        return None
    when = "" if auto.stops_at is None else f", {until(auto.stops_at)} if it is not used"
    return f"{auto.action} after {span(auto.idle_minutes * 60)} idle ({auto.state}){when}"

# SPDX-License-Identifier: Apache-2.0
"""`novitai events`: the log of changes, and new ones as they happen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final, get_args

import typer

from novitai.cli.client import tables
from novitai.cli.client.failures import UsageFailed
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.lookup import complete_names, find_id
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import hourly, second, word
from novitai.cli.output import say

if TYPE_CHECKING:
    from novitai_client.models.history import Actor, Event

TAIL: Final = 100
_PAGE: Final = 1000

app = typer.Typer()


def _style(one: Event) -> str:
    word = one.type.rpartition(".")[2]
    if "failed" in word or "refused" in word or "unenforced" in word or "exceeded" in word:
        return "red"
    return "green" if word == "running" else ""


def _actor(actor: Actor | None) -> str | None:
    return None if actor is None else actor.name or actor.system or actor.key_id


def _detail(one: Event) -> str:
    """Return what an event says besides its type."""
    data: dict[str, Any] = one.data
    error = data.get("error")
    parts: list[object] = []
    if isinstance(error, dict):
        parts.append(f"{error.get('message')} ({error.get('code')})")
    price = data.get("hourlyPrice")
    if one.type in {"instance.running", "instance.price_changed"} and isinstance(
        price, int | float
    ):
        parts.append(hourly(price))
    if one.type.startswith(("instance.limit", "instance.autostop")):
        parts += [data.get(name) for name in ("stopReason", "stopsAt")]
    return ", ".join(str(part) for part in parts if part)


COLUMNS: Final[Sequence[ListColumn[Event]]] = (
    ListColumn("at", lambda one: second(one.at), whole=True),
    ListColumn("type", lambda one: one.type, style=_style),
    ListColumn("name", lambda one: one.data.get("name")),
    ListColumn("by", lambda one: _actor(one.actor)),
    ListColumn("detail", _detail),
    ListColumn("id", lambda one: one.id, extra=True, whole=True),
    ListColumn("instance", lambda one: one.data.get("id"), extra=True, whole=True),
    ListColumn("status", lambda one: one.data.get("status"), extra=True),
)


@command(
    app,
    "events",
    lists=True,
    schema="EventList, and with -f one Event on each line",
    example=["novitai events trainer", "novitai events --newest --tail 20 --columns at,type,name"],
)
def events(
    invocation: Invocation,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID|NAME]", help="Only this instance.", autocompletion=complete_names
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Stay, and show each event as it happens.")
    ] = False,
    kind: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only events of this type.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="EVENT", help="Only events after this one.")
    ] = None,
    tail: Annotated[
        int, typer.Option(min=0, metavar="N", help="Only the last N of them; 0 for all.")
    ] = TAIL,
    newest: Annotated[bool, typer.Option("--newest", help="The newest event first.")] = False,
) -> None:
    """Show the log of changes, oldest first, of all instances or of one.

    With -f, a lost connection is resumed without a gap, and Ctrl-C ends it. Without --since, it
    then begins with the next event.
    """
    instance_id = None if name is None else find_id(invocation, name)
    if follow:
        _follow(invocation, instance_id, kind, since)
        return
    client = invocation.client
    found: Iterable[Event]
    if instance_id is None:
        page = min(_PAGE, tail or _PAGE)
        found = client.events.list(since=since, order="desc", limit=page)
    else:
        of_instance = list(client.instances.events(instance_id, limit=_PAGE))
        found = reversed(_after(of_instance, since))
    wanted = (one for one in found if kind is None or one.type == kind)
    rows = list(islice(wanted, tail or None))
    if not newest:
        rows.reverse()
    if kind is not None and not rows:
        _insist_on_type(kind)
    invocation.show_list(COLUMNS, rows, "events", empty="there are no such events")


def _insist_on_type(kind: str) -> None:
    """Refuse a type that there is not, which would be taken for a type without events.

    Raises:
        UsageFailed: no event has this type.
    """
    from novitai_client.words import EventType

    known = get_args(EventType)
    if kind not in known:
        raise UsageFailed(
            f"--type: there are no events of the type {kind!r}",
            f"The types are: {', '.join(known)}.",
        )


def _after(rows: list[Event], since: str | None) -> list[Event]:
    ids = [one.id for one in rows]
    return rows[ids.index(since) + 1 :] if since in ids else rows


def _follow(
    invocation: Invocation, instance_id: str | None, kind: str | None, since: str | None
) -> None:
    """Show events as they happen."""
    from novitai_client.models.history import Gap

    columns = invocation.wanted(COLUMNS)
    invocation.name_server()
    invocation.note("following; Ctrl-C ends it")
    stream = invocation.client.events.stream(
        since=since,
        type=word(kind),
        instance_id=instance_id,
    )
    for one in stream:
        if isinstance(one, Gap):
            invocation.note("some events are no longer stored; the oldest that there are follow")
        elif invocation.as_json:
            tables.show_json(one, line=True)
        else:
            say(tables.lines(columns, [one], header=False)[0])

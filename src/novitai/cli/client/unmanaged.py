# SPDX-License-Identifier: Apache-2.0
"""`novitai unmanaged`: instances of the account that belong to no record, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import typer

from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import count, hourly, local, usd

if TYPE_CHECKING:
    from novitai_client.models.instances import UnmanagedInstance

app = typer.Typer()


def _kind(one: UnmanagedInstance) -> str:
    if one.dismissed:
        return "dismissed"
    return "orphan" if one.orphan else "foreign"


def _style(one: UnmanagedInstance) -> str:
    return "red" if one.orphan and not one.dismissed else ""


COLUMNS: Final[Sequence[ListColumn[UnmanagedInstance]]] = (
    ListColumn("upstream", lambda one: one.upstream_id),
    ListColumn("name", lambda one: one.name),
    ListColumn("status", lambda one: one.status, whole=True),
    ListColumn("kind", _kind, style=_style, whole=True),
    ListColumn("$/h", lambda one: usd(one.hourly_price), right=True),
    ListColumn("region", lambda one: one.region),
    ListColumn("created", lambda one: local(one.created_at)),
)


@command(app, "unmanaged", lists=True, schema="UnmanagedInstanceList", example="novitai unmanaged")
def unmanaged(invocation: Invocation) -> None:
    """List instances of the Novita account that no record pays for; nothing stops them.

    An orphan was bought by this installation and lost; a foreign one was created elsewhere.
    """
    rows = invocation.client.instances.unmanaged()
    found = invocation.show_list(
        COLUMNS, rows, "instances", empty="every instance of the account belongs to a record"
    )
    if found:
        rate = sum(one.hourly_price or 0 for one in found if one.status == "running")
        invocation.note(
            f"{count(len(found), 'instance')}, running ones cost {hourly(rate)}; an admin can "
            "adopt them: POST /api/instances/adopt"
        )

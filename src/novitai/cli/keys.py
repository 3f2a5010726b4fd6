# SPDX-License-Identifier: Apache-2.0
"""`novitai keys`: create, list and revoke API keys, with or without a running server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.examples import example
from novitai.cli.output import OutputFailed, note, say
from novitai.domain.api_key import ApiKey, Scope, in_order
from novitai.domain.budgets import BudgetPeriod

if TYPE_CHECKING:
    from novitai.cli.key_access import Keys

_COLUMNS: Final = ("id", "name", "scopes", "created", "expires", "revoked", "last used", "limits")

app = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)


@app.command("create", epilog=example("novitai keys create --name ci --scope write"))
def create(
    name: Annotated[str, typer.Option(help="Purpose of the key; shown in lists.")],
    scope: Annotated[list[Scope], typer.Option(help="A scope of the key; repeatable.")],
    expires_at: Annotated[
        str | None,
        typer.Option(help="Expiry time, such as 2027-01-31T00:00:00Z; by default, none."),
    ] = None,
    max_instances: Annotated[
        int | None, typer.Option(help="How many instances of the key may exist at a time.")
    ] = None,
    max_hourly_price: Annotated[
        float | None, typer.Option(help="The most that one may cost an hour, in USD.")
    ] = None,
    max_run_minutes: Annotated[
        int | None, typer.Option(help="After how many minutes each run is stopped.")
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="What all of them may cost in a period, in USD.")
    ] = None,
    budget_period: Annotated[
        BudgetPeriod | None, typer.Option(help="The period of the budget; by default, a month.")
    ] = None,
) -> None:
    """Create a key and print it; it cannot be shown again.

    Its limits bind every instance that it creates, and never change.
    """
    if budget_period is not None and budget is None:
        raise typer.BadParameter("it needs --budget", param_hint="--budget-period")
    limits: dict[str, object] = {
        "maxInstances": max_instances,
        "maxHourlyPrice": max_hourly_price,
        "maxRunMinutes": max_run_minutes,
    }
    if budget is not None:
        period = budget_period or BudgetPeriod.MONTH
        limits["budget"] = {"amount": budget, "period": period.value}
    given = {field: value for field, value in limits.items() if value is not None}
    asyncio.run(_create(name, scope, expires_at, given))


@app.command("list", epilog=example("novitai keys list"))
def list_keys(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List all keys, newest first, including revoked and expired ones."""
    keys = asyncio.run(_list())
    if as_json:
        import orjson

        say(orjson.dumps([_json(key) for key in keys], option=orjson.OPT_INDENT_2).decode())
    elif sys.stdout.isatty():
        _print_table(keys)
    else:
        for key in keys:
            say("\t".join(_row(key)))


@app.command("revoke", epilog=example("novitai keys revoke KEY"))
def revoke(
    key_id: Annotated[str, typer.Argument(help="The key's ID, as shown by `keys list`.")],
) -> None:
    """Revoke a key: a running server refuses it within two seconds."""
    key = asyncio.run(_revoke(key_id))
    say(f"novitai: revoked {key.id} ({key.name})")


async def _create(
    name: str, scopes: list[Scope], expires_at: str | None, limits: dict[str, object]
) -> None:
    from novitai.api.schemas.keys import CreateKeyRequest
    from novitai.api.schemas.wire import read
    from novitai.clock import SystemClock

    fields: dict[str, object] = {"name": _as_utf8(name), "scopes": [one.value for one in scopes]}
    if expires_at is not None:
        fields["expiresAt"] = expires_at
    if limits:
        fields["limits"] = limits
    read(CreateKeyRequest, fields, now=SystemClock().now())
    async with _open_keys() as keys:
        made = await keys.create(fields)
        with contextlib.suppress(OutputFailed):  # only the key itself must be shown
            note(
                f"novitai: created {made.key.id} ({made.key.name}), scopes: "
                f"{', '.join(in_order(made.key.scopes))}. It is shown only once:"
            )
        try:
            say(made.text)
        except OutputFailed as error:
            await keys.revoke(made.key.id)
            raise OutputFailed(
                f"{error}: the key could not be shown, so it was revoked ({made.key.id})",
                exit_code=error.exit_code,
            ) from None
        await keys.shown()


async def _list() -> list[ApiKey]:
    async with _open_keys() as keys:
        return await keys.all()


async def _revoke(key_id: str) -> ApiKey:
    async with _open_keys() as keys:
        return await keys.revoke(key_id)


@contextlib.asynccontextmanager
async def _open_keys() -> AsyncIterator[Keys]:
    """Open the keys in the database, or through the server that has it open."""
    from novitai.cli.key_access import KeysHere, KeysOfServer
    from novitai.cli.local_client import LocalServer, open_store_or_server
    from novitai.clock import SystemClock
    from novitai.ids import Ids
    from novitai.opening import make_key_ring
    from novitai.settings import load

    settings, clock = load(), SystemClock()
    otherwise = "It does not answer on its socket. With an admin key, use /api/keys instead."
    async with open_store_or_server(settings, clock, otherwise=otherwise) as found:
        if isinstance(found, LocalServer):
            yield KeysOfServer(found)
        else:
            yield KeysHere(make_key_ring(settings, found, clock, Ids()), clock)


def _as_utf8(argument: str) -> str:
    """Decode an argument as UTF-8 in any locale; in the C locale Python might not."""
    return os.fsencode(argument).decode("utf-8", "surrogateescape")


def _print_table(keys: list[ApiKey]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*_COLUMNS, box=None, pad_edge=False)
    for key in keys:
        table.add_row(*_row(key))
    Console(markup=False, highlight=False).print(table)


def _row(key: ApiKey) -> list[str]:
    times = (key.created_at, key.expires_at, key.revoked_at, key.last_used_at)
    told = [f"{name}={_told(value)}" for name, value in _limits(key).items()]
    return [
        key.id,
        key.name,
        ",".join(in_order(key.scopes)),
        *(_time(at) or "-" for at in times),
        ",".join(told) or "-",
    ]


def _limits(key: ApiKey) -> dict[str, object]:
    """Return the limits of a key as the API shows them; empty without any."""
    from novitai.api.schemas.keys import KeyLimitsView

    shown = KeyLimitsView.of(key)
    return {} if shown is None else shown.model_dump(mode="json", by_alias=True, exclude_none=True)


def _told(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['amount']:g}/{value['period']}"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _json(key: ApiKey) -> dict[str, object]:
    shown = {
        "id": key.id,
        "name": key.name,
        "scopes": in_order(key.scopes),
        "createdAt": _time(key.created_at),
        "expiresAt": _time(key.expires_at),
        "revokedAt": _time(key.revoked_at),
        "lastUsedAt": _time(key.last_used_at),
        "limits": _limits(key) or None,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _time(at: int | None) -> str | None:
    from novitai.clock import iso

    return None if at is None else iso(at)

# SPDX-License-Identifier: Apache-2.0
"""`novitai costs` and `novitai budgets`: the money that is spent, and its limits."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final
from zoneinfo import ZoneInfo

import typer
from typer.core import TyperGroup

from novitai.cli.client.failures import CommandFailed, ExitCode, UsageFailed
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.periods import EXAMPLES, interval
from novitai.cli.client.tables import ListColumn
from novitai.cli.client.wording import clean, hourly, local, span, usd
from novitai.cli.output import say

if TYPE_CHECKING:
    from typer._click.core import Context

    from novitai_client.models.money import (
        Budget,
        CostRow,
        Costs,
        CostSummary,
        ReconciledRow,
        Reconciliation,
    )
    from novitai_client.requests import BudgetFields

_YEAR_HOURS: Final = 365 * 24
_STATES: Final = {"over": "red", "unknownOwner": "red", "under": "yellow"}


class _CostGroup(TyperGroup):
    """`novitai costs` alone, or with options, is `novitai costs show`."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        """Put the usual command in, unless one is named or the help is asked for."""
        if not args or (args[0].startswith("-") and args[0] not in {"-h", "--help"}):
            args = ["show", *args]
        return super().parse_args(ctx, args)


costs_app = typer.Typer(
    cls=_CostGroup,
    help="Show the costs of a period (`novitai costs` is `novitai costs show`), and compare them "
    "with Novita's bills.",
)
budgets_app = typer.Typer(help="Limit what may be spent in a day, a week or a month.")

Period = Annotated[str, typer.Option("--for", metavar="PERIOD", help=f"A period: {EXAMPLES}.")]
Zone = Annotated[
    str, typer.Option("--tz", metavar="ZONE", help="The time zone of days and months.")
]


def _cost_columns(by: str, bucket: str | None, zone: ZoneInfo) -> Sequence[ListColumn[CostRow]]:
    begins: ListColumn[CostRow] = ListColumn(
        bucket or "", lambda one: local(one.bucket, zone), whole=True
    )
    return (
        *((begins,) if bucket else ()),
        ListColumn(by, lambda one: one.key),
        ListColumn("cost", lambda one: usd(one.amount), right=True),
        ListColumn("at most", lambda one: usd(one.amount_at_most), right=True),
        ListColumn("gpu hours", lambda one: f"{one.gpu_hours:.2f}", right=True),
    )


@command(
    costs_app,
    "show",
    lists=True,
    schema="CostReport",
    example=[
        "novitai costs",
        "novitai costs --for 'last month' --by tag:team",
        "novitai costs --for 7d --by product --bucket day --csv",
    ],
)
def costs(
    invocation: Invocation,
    period: Period = "this month",
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="GROUP",
            help="instance, product, region, billingMode, key, or tag:NAME.",
        ),
    ] = "instance",
    bucket: Annotated[
        str | None,
        typer.Option(metavar="hour|day|week|month", help="One row for each of these too."),
    ] = None,
    tz: Zone = "UTC",
    csv: Annotated[bool, typer.Option("--csv", help="CSV, as a file for a spreadsheet.")] = False,
) -> None:
    """Show what a period has cost, by instance, product, key or tag."""
    if csv and invocation.as_json:
        raise UsageFailed("--csv and --json exclude each other")
    wanted = interval(period, tz, datetime.now(UTC))
    terms: dict[str, Any] = {
        "from_": wanted.start,
        "to": wanted.end,
        "group_by": by,
        "bucket": bucket,
        "tz": tz,
    }
    if csv:
        for line in invocation.client.costs.csv(**terms).splitlines():
            say(clean(line))
        return
    found = invocation.client.costs.get(**terms)
    zone = ZoneInfo(tz)
    name = by.partition(":")[2] or by
    invocation.show_list(
        _cost_columns(name.lower(), bucket, zone),
        found.rows,
        "rows",
        empty="nothing was billed in this period",
        whole=lambda _: found,
    )
    if not invocation.as_json:
        invocation.note(_total(found, zone))
        invocation.note(_summary(invocation.client.costs.summary(tz=tz)))


def _total(found: Costs, zone: ZoneInfo) -> str:
    most = "" if found.total_at_most == found.total else f", at most {usd(found.total_at_most)}"
    return f"{usd(found.total)}{most} from {local(found.from_, zone)} to {local(found.to, zone)}"


def _summary(now: CostSummary) -> str:
    left = ""
    if now.balance is not None:
        left = f"; the balance is {usd(now.balance)}"
    if now.runway_hours is not None:
        long = now.runway_hours > _YEAR_HOURS
        left += ", enough for over a year" if long else f", enough for {_hours(now.runway_hours)}"
    return f"now {hourly(now.burn_per_hour)}, today {usd(now.today)}{left}"


def _hours(hours: float) -> str:
    return span(hours * 3600)


def _state(one: ReconciledRow) -> str:
    return _STATES.get(one.state, "")


_RECONCILED: Final[Sequence[ListColumn[ReconciledRow]]] = (
    ListColumn("name", lambda one: one.name),
    ListColumn("upstream", lambda one: one.upstream_id),
    ListColumn("state", lambda one: one.state, style=_state, whole=True),
    ListColumn("ours", lambda one: usd(one.ours), right=True),
    ListColumn("billed", lambda one: usd(one.billed), right=True),
    ListColumn("difference", lambda one: usd(one.difference), right=True),
    ListColumn("pending", lambda one: usd(one.pending), right=True),
    ListColumn("id", lambda one: one.instance_id, extra=True),
    ListColumn("at most", lambda one: usd(one.ours_at_most), extra=True, right=True),
    ListColumn("before adoption", lambda one: usd(one.before_adoption), extra=True, right=True),
)


@command(
    costs_app,
    "reconcile",
    lists=True,
    schema="Reconciliation",
    example="novitai costs reconcile --for 'last month'",
)
def reconcile(invocation: Invocation, period: Period = "this month", tz: Zone = "UTC") -> None:
    """Compare what was reckoned with what Novita has billed, instance by instance."""
    wanted = interval(period, tz, datetime.now(UTC))
    found = invocation.client.costs.reconciliation(from_=wanted.start, to=wanted.end)
    invocation.show_list(
        _RECONCILED,
        found.rows,
        "rows",
        empty="there is nothing to compare in this period",
        whole=lambda _: found,
    )
    invocation.note(_compared(found))


def _compared(found: Reconciliation) -> str:
    totals = found.totals
    known = found.bill_known_until
    until = "no bill was read yet" if known is None else f"bills are known until {local(known)}"
    return (
        f"ours {usd(totals.ours)}, billed {usd(totals.billed)}, difference "
        f"{usd(totals.difference)}; {until}"
    )


def _scope(one: Budget) -> str:
    if one.scope.tag is not None:
        return f"{one.scope.tag.name}={one.scope.tag.value}"
    return one.scope.key_id or "all"


def _spent_style(one: Budget) -> str:
    return "red" if one.remaining <= 0 else "yellow" if one.remaining < one.amount / 5 else ""


_BUDGETS: Final[Sequence[ListColumn[Budget]]] = (
    ListColumn("name", lambda one: one.name),
    ListColumn("amount", lambda one: f"{usd(one.amount)}/{one.period}", right=True),
    ListColumn("spent", lambda one: usd(one.spent), right=True),
    ListColumn("reserved", lambda one: usd(one.reserved), right=True),
    ListColumn("left", lambda one: usd(one.remaining), right=True, style=_spent_style),
    ListColumn("for", _scope),
    ListColumn("then", lambda one: one.on_limit, whole=True),
    ListColumn("id", lambda one: one.id, extra=True, whole=True),
    ListColumn("tz", lambda one: one.tz, extra=True),
    ListColumn("alerts", lambda one: ",".join(map(str, one.alert_at)), extra=True),
    ListColumn("ends", lambda one: local(one.period_end), extra=True),
)


@command(budgets_app, "list", lists=True, schema="BudgetList", example="novitai budgets list")
def list_budgets(invocation: Invocation) -> None:
    """List budgets: the amount, what is spent and reserved, and what is left."""
    rows = invocation.client.budgets.list()
    invocation.show_list(_BUDGETS, rows, "budgets", empty="there are no budgets")


@command(
    budgets_app,
    "set",
    schema="Budget",
    example=[
        "novitai budgets set ci 20 --period day --tag team=ci --on-limit refuse",
        "novitai budgets set ci 50",
    ],
)
def set_budget(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the budget.")],
    amount: Annotated[float, typer.Argument(metavar="USD", help="How much may be spent.")],
    period: Annotated[
        str | None,
        typer.Option(metavar="day|week|month|total", help="By default, a month."),
    ] = None,
    tag: Annotated[
        str | None, typer.Option(metavar="NAME=VALUE", help="Only instances with this tag.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(metavar="KEY", help="Only instances of this API key.")
    ] = None,
    on_limit: Annotated[
        str | None,
        typer.Option(metavar="alert|refuse|stop", help="By default, an alert."),
    ] = None,
    alert_at: Annotated[
        str | None,
        typer.Option(metavar="PERCENTAGES", help="When alerts are sent; by default, 50,80,100."),
    ] = None,
    tz: Annotated[
        str | None, typer.Option("--tz", metavar="ZONE", help="The time zone of the period.")
    ] = None,
) -> None:
    """Create a budget, or change the one with this name. Needs the scope `admin`."""
    if tag is not None and key is not None:
        raise UsageFailed("--tag and --key exclude each other")
    terms: dict[str, Any] = {"amount": amount}
    if period is not None:
        terms["period"] = period
    if on_limit is not None:
        terms["on_limit"] = on_limit
    if tz is not None:
        terms["tz"] = tz
    if alert_at is not None:
        terms["alert_at"] = _percentages(alert_at)
    if tag is not None:
        label, sign, value = tag.partition("=")
        if not sign:
            raise UsageFailed(f"--tag: {clean(tag)!r} is not of the form name=value")
        terms["scope"] = {"tag": {"name": label, "value": value}}
    if key is not None:
        terms["scope"] = {"key_id": key}
    budgets = invocation.client.budgets
    existing = [] if invocation.curl else _called(invocation, name)
    invocation.action = "Whether the budget was set is not known: `novitai budgets list` shows it."
    if existing:
        budget = budgets.update(existing[0].id, **terms)
    else:
        new: BudgetFields = {"name": name, "period": "month", **terms}  # type: ignore[typeddict-item]  # the server knows the words
        budget = budgets.create(**new)
    invocation.name_server()
    invocation.result(
        budget,
        f"{budget.id}  {budget.name}  {usd(budget.amount)} a {budget.period}  for "
        f"{_scope(budget)}  then {budget.on_limit}  {usd(budget.remaining)} left",
    )


@command(
    budgets_app, "delete", asks=True, schema="Budget", example="novitai budgets delete ci --yes"
)
def delete_budget(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="ID|NAME", help="The budget.")],
) -> None:
    """Delete a budget. Instances that it stopped stay stopped. Needs the scope `admin`."""
    invocation.confirm(f"Delete the budget {clean(name)}?")
    found = [] if name.startswith("bud_") else _called(invocation, name)
    if not found and not name.startswith("bud_"):
        raise CommandFailed(
            f"no budget is called {clean(name)!r}",
            "`novitai budgets list` shows all budgets.",
            ExitCode.NOT_FOUND,
        )
    deleted = invocation.client.budgets.delete(found[0].id if found else name)
    invocation.name_server()
    invocation.result(deleted, f"deleted {deleted.id} ({deleted.name})")


def _called(invocation: Invocation, name: str) -> list[Budget]:
    """Return the budgets with a name; that of a key cannot be changed.

    Raises:
        CommandFailed: there are several.
    """
    found = [
        one for one in invocation.client.budgets.list() if one.name == name and not one.key_limit
    ]
    if len(found) > 1:
        ids = ", ".join(one.id for one in found)
        raise CommandFailed(
            f"several budgets are called {clean(name)!r}: {ids}", "", ExitCode.WRONG_STATE
        )
    return found


def _percentages(text: str) -> list[int]:
    try:
        return [int(one) for one in text.split(",")]
    except ValueError:
        raise UsageFailed(f"--alert-at: {clean(text)!r} is not such as 50,80,100") from None

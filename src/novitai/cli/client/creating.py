# SPDX-License-Identifier: Apache-2.0
"""`novitai offers`, `quote` and `create`: what can be had, at which price, and having it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.client.failures import TOO_DEAR, CommandFailed, ExitCode
from novitai.cli.client.instances import stops
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.tables import ListColumn, show_json
from novitai.cli.client.waiting import READY_WITHIN, Within, wait_for
from novitai.cli.client.wording import (
    clean,
    count,
    duration,
    hourly,
    minutes,
    pairs,
    span,
    usd,
    word,
)

if TYPE_CHECKING:
    from novitai_client.models.catalogue import Product
    from novitai_client.models.instances import Instance
    from novitai_client.models.money import Quote
    from novitai_client.requests import CreateFields, LimitsFields, QuoteFields

app = typer.Typer()

ProductName = Annotated[
    str, typer.Option("--product", metavar="PRODUCT", help="The name or ID of a product.")
]
TemplateId = Annotated[str, typer.Option("--template", metavar="ID", help="The ID of a template.")]
Gpus = Annotated[int, typer.Option("--gpus", min=1, max=8, help="The number of GPUs.")]
Region = Annotated[
    str | None,
    typer.Option(metavar="REGION", help="Only this region; `any` for the cheapest of all."),
]
Spot = Annotated[
    bool, typer.Option("--spot", help="Cheaper, and Novita may take the instance back.")
]
Disk = Annotated[
    int | None, typer.Option("--disk", metavar="GB", help="The root filesystem; by default, 60.")
]
MaxPrice = Annotated[
    float | None,
    typer.Option(metavar="USD", help="The most that the whole instance may cost an hour."),
]


@dataclass(frozen=True, slots=True)
class OfferLine:
    """An offer, or what is no offer and why; prices are in USD per hour for the whole instance."""

    product: str
    region: str
    price: float | None
    refused: str = ""


def _offer_style(one: OfferLine) -> str:
    return "dim" if one.refused else "green"


_OFFERS: Final[Sequence[ListColumn[OfferLine]]] = (
    ListColumn("product", lambda one: one.product, style=_offer_style),
    ListColumn("region", lambda one: one.region),
    ListColumn("$/h", lambda one: usd(one.price), right=True),
    ListColumn("ruled out", lambda one: one.refused),
)


@command(
    app,
    "offers",
    schema="ProductList or Quote",
    lists=True,
    example=["novitai offers", "novitai offers 'RTX 4090 24GB' --gpus 2 --max-price 1.50"],
)
def offers(
    invocation: Invocation,
    product: Annotated[
        str | None, typer.Argument(metavar="[PRODUCT]", help="One product, region by region.")
    ] = None,
    gpus: Gpus = 1,
    spot: Spot = False,
    region: Region = None,
    max_price: MaxPrice = None,
) -> None:
    """List what can be had now, cheapest first, and what was ruled out and why.

    Prices are for the whole instance. With a PRODUCT, each region is an offer of its own.
    """
    if product is None:
        _all_products(invocation, gpus, spot, region, max_price)
        return
    template = next(iter(invocation.client.templates.list(limit=1)), None)
    if template is None:
        raise CommandFailed("Novita lists no template", "", ExitCode.NO_CAPACITY)
    fields: QuoteFields = {
        "name": "offers",
        "product_name": product,
        "template_id": template.id,
        "gpu_num": gpus,
        "region": region or "any",
        "billing_mode": "spot" if spot else "onDemand",
        "max_hourly_price": max_price,
    }
    quote = invocation.client.quotes.create(**fields)
    lines = [
        *(OfferLine(product, one.region, one.hourly_price) for one in quote.candidates),
        *(OfferLine(product, one.region, None, one.message) for one in quote.refused),
    ]
    _show_offers(invocation, lines, quote)


def _all_products(
    invocation: Invocation, gpus: int, spot: bool, region: str | None, max_price: float | None
) -> None:
    mode = "spot" if spot else "onDemand"
    products = invocation.client.products
    anywhere = list(products.list(gpu_num=gpus))
    limited = region is not None and region.lower() != "any"
    here = list(products.list(gpu_num=gpus, region=region)) if limited else anywhere
    local = {one.id: one for one in here}
    fits: list[Product] = []
    lines: list[OfferLine] = []
    for one in anywhere:
        found = local.get(one.id, one)
        unit = found.spot_price if spot else found.on_demand_price
        price = None if unit is None else unit * gpus
        why = ""
        if one.id not in local:
            why = f"not in {region}; in {', '.join(one.regions)}"
        elif price is None:
            why = f"not offered in the mode {mode}"
        elif not found.available:
            why = f"no stock for {count(gpus, 'GPU')}"
        elif max_price is not None and price > max_price:
            why = f"above {usd(max_price)} an hour"
        else:
            fits.append(found)
        lines.append(OfferLine(one.name, ", ".join(found.regions), price, why))
    lines.sort(key=lambda one: (bool(one.refused), math.inf if one.price is None else one.price))
    _show_offers(invocation, lines, {"products": fits})


def _show_offers(invocation: Invocation, lines: list[OfferLine], whole: object) -> None:
    invocation.show_list(
        _OFFERS, lines, "", empty="Novita lists no products", whole=lambda _: whole
    )
    if lines and all(one.refused for one in lines):
        invocation.note("nothing fits now; the last column says why")


@command(
    app,
    "quote",
    schema="Quote",
    example="novitai quote --product 'RTX 4090 24GB' --template tmpl-12345 --region any",
)
def quote(
    invocation: Invocation,
    product: ProductName,
    template: TemplateId,
    gpus: Gpus = 1,
    region: Region = None,
    spot: Spot = False,
    disk: Disk = None,
    name: Annotated[
        str, typer.Option(metavar="NAME", help="The name of the instance to come.")
    ] = "quoted",
    max_price: MaxPrice = None,
) -> None:
    """Say what a create would buy now, and at which price. Nothing is bought or reserved.

    For 5 minutes, `novitai create ... --quote ID` buys it and never pays more.
    """
    fields = _fields(name, product, template, gpus, region, spot, disk, max_price)
    made = invocation.client.quotes.create(**fields)
    invocation.show(made, lambda: _quoted(made))
    if not made.candidates:
        reasons = {one.reason for one in made.refused}
        raise CommandFailed(
            "nothing fits now",
            "`novitai offers` shows what can be had.",
            ExitCode.OVER_LIMIT if reasons & TOO_DEAR else ExitCode.NO_CAPACITY,
        )


def _quoted(made: Quote) -> list[tuple[str, object]]:
    ready = [one.estimated_ready_seconds for one in made.candidates]
    return [
        ("quote", made.quote_id if made.candidates else None),
        ("valid until", made.expires_at.astimezone().strftime("%H:%M:%S")),
        *(
            (
                f"offer {number}",
                f"{hourly(one.hourly_price)} in {one.region}{_disk(one.storage_per_day)}",
            )
            for number, one in enumerate(made.candidates, 1)
        ),
        ("ready in", f"about {span(ready[0])}" if ready else None),
        *((f"not {one.region}", one.message) for one in made.refused),
        *(
            (f"budget {one.id}", f"{usd(one.remaining)} left{'' if one.allows else ': too little'}")
            for one in made.budgets
        ),
    ]


def _disk(per_day: float) -> str:
    return f", and {usd(per_day)} a day for the disk" if per_day else ""


def _fields(
    name: str,
    product: str,
    template: str,
    gpus: int,
    region: str | None,
    spot: bool,
    disk: int | None,
    max_price: float | None,
) -> QuoteFields:
    return {
        "name": name,
        "product_name": product,
        "template_id": template,
        "gpu_num": gpus,
        "rootfs_size": disk,
        "region": region,
        "billing_mode": "spot" if spot else None,
        "max_hourly_price": max_price,
    }


@command(
    app,
    "create",
    schema="AcceptedInstance, or Instance with --wait",
    example=[
        (
            "novitai create trainer --product 'RTX 4090 24GB' --template tmpl-12345 "
            "--max-run 8h --tag team=vision --wait"
        ),
    ],
)
def create(
    invocation: Invocation,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the instance.")],
    product: ProductName,
    template: TemplateId,
    gpus: Gpus = 1,
    region: Region = None,
    spot: Spot = False,
    disk: Disk = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A variable of the environment; repeatable."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A tag; repeatable.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option(metavar="URL", help="Gets a message at each change of status.")
    ] = None,
    max_price: MaxPrice = None,
    max_spend: Annotated[
        float | None,
        typer.Option(metavar="USD", help="It is stopped once it has cost so much in its life."),
    ] = None,
    max_run: Annotated[
        str | None, typer.Option(metavar="DURATION", help="The longest run, such as 8h.")
    ] = None,
    idle: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Stop it after so long without use.")
    ] = None,
    on_limit: Annotated[
        str | None,
        typer.Option(
            metavar="stop|delete", help="Whether a limit stops or deletes it; by default, it stops."
        ),
    ] = None,
    quote_id: Annotated[
        str | None, typer.Option("--quote", metavar="ID", help="Pay no more than this quote says.")
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="With the same key, the command buys only once."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until it serves; show each status on the way.")
    ] = False,
    timeout: Within = READY_WITHIN,
) -> None:
    """Create an instance, and say what it costs and when it stops.

    It is bought exactly once, even if the server restarts meanwhile. Exit code 6: nothing fits
    now. 7: a budget or a price limit does not allow it. 8: --wait is over, and the instance lives
    on.
    """
    seconds = duration(timeout, "--timeout").total_seconds()
    fields: CreateFields = {
        **_fields(name, product, template, gpus, region, spot, disk, max_price),
        "envs": pairs(env, "--env") or None,
        "tags": pairs(tag, "--tag") or None,
        "webhook_url": webhook,
        "quote_id": quote_id,
    }
    limits: LimitsFields = {}
    if max_spend is not None:
        limits["max_spend"] = max_spend
    if max_run is not None:
        limits["max_run_minutes"] = minutes(max_run, "--max-run")
    if on_limit is not None:
        limits["on_limit"] = word(on_limit)
    if limits:
        fields["limits"] = limits
    if idle is not None:
        fields["auto_stop"] = {"idle_minutes": minutes(idle, "--idle")}
    invocation.name_server()
    from novitai_client.sending import new_key

    idempotency_key = idempotency_key or new_key()
    invocation.action = (
        f"Whether {clean(name)} was created is not known: `novitai ls` shows it, and the same "
        f"command with `--idempotency-key {clean(idempotency_key)}` creates it at most once."
    )
    expected = None if invocation.curl else _expected(invocation, fields)
    made = invocation.client.instances.create(idempotency_key=idempotency_key, **fields)
    invocation.action = (
        f"{clean(name)} ({made.instance_id}) was created: `novitai delete {made.instance_id}` "
        "deletes it."
    )
    if invocation.as_json and not wait:
        show_json(made)
        return
    instance = invocation.client.instances.get(made.instance_id)
    if not wait:
        invocation.result(made, created_line(instance, expected))
        return
    if not invocation.as_json:
        invocation.note(created_line(instance, expected))
    shown = wait_for(invocation, instance, "running", seconds)
    invocation.result(shown, created_line(shown, None))


def _expected(invocation: Invocation, fields: CreateFields) -> Quote | None:
    """Return a quote for the price to show; whether the create succeeds does not depend on it."""
    from novitai_client.errors import NovitaiError

    wanted = {name: value for name, value in fields.items() if name != "quote_id"}
    with suppress(NovitaiError):
        return invocation.client.quotes.create(**wanted)  # type: ignore[arg-type]  # of a quote
    return None


def created_line(one: Instance, expected: Quote | None) -> str:
    """Return the line about a new instance: ID, product, region, price, when it stops."""
    candidate = expected.candidates[0] if expected is not None and expected.candidates else None
    region, price = one.region, hourly(one.hourly_price)
    if one.hourly_price is None and candidate is not None:
        region, price = candidate.region, f"about {hourly(candidate.hourly_price)}"
    return "  ".join((one.id, f"{one.gpu_num} x {one.product_name}", region, price, _end(one)))


def _end(one: Instance) -> str:
    limits = one.limits
    if one.stops_at is not None:
        return f"stops {stops(one)}"
    if limits is not None and limits.max_run_minutes is not None:
        return f"{limits.on_limit}s after {span(limits.max_run_minutes * 60)}"
    if limits is not None and limits.max_spend is not None:
        return f"{limits.on_limit}s at {usd(limits.max_spend)}"
    if one.auto_stop is not None:
        return f"{one.auto_stop.action}s after {span(one.auto_stop.idle_minutes * 60)} idle"
    return "no limit stops it"

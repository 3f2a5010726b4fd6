# SPDX-License-Identifier: Apache-2.0
"""`/api/costs` and `/api/instances/{instanceId}/cost`: what instances cost, from the ledger."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from datetime import timedelta
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import orjson
from pydantic import AfterValidator, Field
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.accept import JSON, preferred
from novitai.api.http.answers import answer
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE
from novitai.api.routing.queries import From, OneOf, To
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.costs import (
    CostPart,
    CostRowView,
    CostsResponse,
    CostSummaryResponse,
    InstanceCostResponse,
    ReconciledRow,
    ReconciledTotals,
    ReconciliationResponse,
    SpanView,
)
from novitai.api.schemas.wire import FieldInvalid, RequestModel, Wording, absent
from novitai.api.services import CostSources
from novitai.clock import Clock, iso
from novitai.domain.api_key import Scope
from novitai.domain.billing import (
    HOURS_PER_DAY,
    LedgerSpan,
    SpanKind,
    half_even,
    shares,
    usd_down,
    usd_up,
)
from novitai.domain.billing_periods import Bucket, begin_of, zone
from novitai.domain.product import PRICE_UNITS_PER_USD
from novitai.domain.view import cost_view, iso_or_none, present
from novitai.errors import FieldError, ValidationFailed
from novitai.lifecycle.money.costs import (
    CostDetails,
    CostReport,
    CostRow,
    CostsWanted,
    GroupBy,
    gpu_hours_of,
    usd_of,
)
from novitai.lifecycle.money.reconciliation import ReconciliationReport

MAX_DAYS: Final = 400
"""The longest interval, in days."""
CSV: Final = "text/csv"

_TAG: Final = "tag:"
_GROUP: Final = re.compile(
    "|".join([*(one.value for one in GroupBy), _TAG + "[a-z0-9][a-z0-9._-]{0,62}"])
)
_GROUPS: Final = f"groupBy must be one of {', '.join(one.value for one in GroupBy)}, or tag:<name>"
_COLUMNS: Final = ("key", "bucket", "amount", "amountAtMost", "gpuHours")


def _group(value: str) -> str:
    if not _GROUP.fullmatch(value):
        raise FieldInvalid(_GROUPS)
    return value


def _zone(value: str) -> str:
    if zone(value) is None:
        raise FieldInvalid("tz must be the IANA name of a time zone, such as Europe/Berlin")
    return value


Zone = Annotated[
    str,
    Field(min_length=1, max_length=64, description="The IANA name of a time zone"),
    AfterValidator(_zone),
    Wording("tz", wrong="tz must be the IANA name of a time zone, such as Europe/Berlin"),
]


class IntervalQuery(RequestModel):
    """An interval, which is half open."""

    since: Annotated[From, Field(description="By default, the first of this month")] = absent()
    until: Annotated[To, Field(description="By default, now")] = absent()


class CostsQuery(IntervalQuery):
    """Which costs to show; intervals are half open."""

    group_by: Annotated[
        str,
        Field(
            min_length=1,
            max_length=80,
            pattern=f"^(?:{_GROUP.pattern})$",
            description="By what to group: `instance`, `product`, `region`, `billingMode`, `key` "
            "or `tag:<name>`",
        ),
        AfterValidator(_group),
        Wording("groupBy", wrong=_GROUPS, pattern=_GROUPS),
    ] = GroupBy.INSTANCE.value
    bucket: Annotated[
        Bucket, Field(description="One row for each period, of the time zone"), OneOf("bucket")
    ] = absent()
    tz: Zone = "UTC"


class SummaryQuery(RequestModel):
    """In which time zone a day and a month begin."""

    tz: Zone = "UTC"


class CostRoutes:
    """Handlers of the cost routes."""

    def __init__(self, sources: CostSources, clock: Clock) -> None:
        self._costs = sources.costs
        self._balance = sources.balance
        self._reconciliation = sources.reconciliation
        self._clock = clock

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path=f"{paths.INSTANCE}/cost",
                id="getInstanceCost",
                handler=self.of_instance,
                scope=Scope.READ,
                tag="Costs",
                summary="Read what an instance costs",
                answers={200: InstanceCostResponse},
                errors=[NO_INSTANCE],
            ),
            Route(
                method="GET",
                path="/api/costs",
                id="getCosts",
                handler=self.report,
                scope=Scope.READ,
                tag="Costs",
                summary="Read the costs of an interval",
                answers={200: CostsResponse},
                other_types=[CSV],
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path="/api/costs/summary",
                id="getCostSummary",
                handler=self.summary,
                scope=Scope.READ,
                tag="Costs",
                summary="Read what is spent now",
                answers={200: CostSummaryResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path="/api/costs/reconciliation",
                id="getCostReconciliation",
                handler=self.reconcile,
                scope=Scope.READ,
                tag="Costs",
                summary="Compare the costs with Novita's bills",
                answers={200: ReconciliationResponse},
                errors=[BAD_QUERY],
            ),
        ]

    async def of_instance(self, call: RouteCall) -> Response:
        """Read what an instance costs, by GPU and storage, with the spans of the ledger."""
        details = await self._costs.of_instance(call.named("instanceId"))
        return answer(orjson.dumps(_details(details)))

    async def report(self, call: RouteCall, query: CostsQuery) -> Response:
        """Read the costs of an interval by group and, if `bucket` is given, by period.

        Amounts reach up to the last listing of the account. The response is JSON, or CSV if
        `Accept` prefers `text/csv`.
        """
        wanted = self._wanted(query)
        report = await self._costs.report(wanted)
        if preferred(call.context.accept, (JSON, CSV)) == CSV:
            return Response(_csv(report), 200, None, f"{CSV}; charset=utf-8")
        return answer(orjson.dumps(_report(report)))

    async def summary(self, call: RouteCall, query: SummaryQuery) -> Response:
        """Read the present burn, this day's and this month's costs, and Novita's balance."""
        summary = await self._costs.summary(ZoneInfo(query.tz))
        balance = await self._balance.read()
        runway = None
        if balance is not None and summary.burn > 0:
            runway = round(max(0.0, balance) / usd_of(summary.burn), 2)
        return answer(
            CostSummaryResponse(
                currency="USD",
                burn_per_hour=usd_of(summary.burn),
                today=usd_of(summary.today),
                this_month=usd_of(summary.this_month),
                balance=balance,
                runway_hours=runway,
                as_of=summary.as_of,
            )
        )

    async def reconcile(self, call: RouteCall, query: IntervalQuery) -> Response:
        """Compare the costs of an interval with Novita's bills, by upstream instance.

        The worker reads the bills once an hour, two hours behind the clock; this request does not
        call Novita. A bill is of a full hour, so the interval is that of the hours that begin in
        it.
        """
        report = await self._reconciliation.report(*self._interval(query, ZoneInfo("UTC")))
        return answer(orjson.dumps(_reconciled(report)))

    def _interval(self, query: IntervalQuery, tz: ZoneInfo) -> tuple[int, int]:
        """Return begin and end of the interval.

        Raises:
            ValidationFailed: it is empty or too long.
        """
        now, given = self._clock.now(), query.model_fields_set
        until = query.until if "until" in given else now
        since = query.since if "since" in given else begin_of(Bucket.MONTH, now, tz)
        if since >= until:
            raise _invalid("to", "to must be later than from", until)
        if until - since > timedelta(days=MAX_DAYS).total_seconds() * 1000:
            raise _invalid("from", f"from and to must be at most {MAX_DAYS} days apart", since)
        return since, until

    def _wanted(self, query: CostsQuery) -> CostsWanted:
        tz = ZoneInfo(query.tz)
        since, until = self._interval(query, tz)
        tag = query.group_by.removeprefix(_TAG) if query.group_by.startswith(_TAG) else None
        return CostsWanted(
            since,
            until,
            GroupBy.INSTANCE if tag is not None else GroupBy(query.group_by),
            tag,
            query.bucket if "bucket" in query.model_fields_set else None,
            tz,
        )


def _invalid(field: str, message: str, at: int) -> ValidationFailed:
    return ValidationFailed("Validation failed", details=[FieldError(field, message, iso(at))])


def _details(found: CostDetails) -> InstanceCostResponse:
    parts: dict[SpanKind, CostPart] = {
        kind: {"accrued": usd_down(least), "accruedAtMost": usd_up(most)}
        for kind, (least, most) in found.by_kind.items()
    }
    return {
        **cost_view(found.cost),
        "instanceId": found.instance_id,
        "gpu": parts[SpanKind.GPU],
        "storage": parts[SpanKind.DISK],
        "spans": [_span(span, found.cost.as_of) for span in found.spans],
    }


def _span(span: LedgerSpan, as_of: int) -> SpanView:
    if span.ended_by is None and span.expires_by is not None and span.expires_by <= as_of:
        # The disk was purged, and nothing is written then.
        span = replace(span, ended_after=span.expires_after, ended_by=span.expires_by)
    rate = None if span.rate is None else span.rate / HOURS_PER_DAY / PRICE_UNITS_PER_USD
    shown: SpanView = {
        "kind": span.kind,
        "hourlyRate": rate,
        "beganAfter": iso(span.began_after),
        "beganBy": iso_or_none(span.began_by),
        "endedAfter": iso_or_none(span.ended_after),
        "endedBy": iso_or_none(span.ended_by),
    }
    return present(shown)


def _report(report: CostReport) -> CostsResponse:
    return {
        "currency": "USD",
        "from": iso(report.since),
        "to": iso(report.until),
        "total": usd_of(report.total),
        "totalAtMost": usd_of(report.total_at_most),
        "rows": [_row(row) for row in report.rows],
    }


def _row(row: CostRow) -> CostRowView:
    shown: CostRowView = {
        "key": row.key,
        "bucket": iso_or_none(row.bucket),
        "amount": usd_of(row.amount),
        "amountAtMost": usd_of(row.at_most),
        "gpuHours": gpu_hours_of(row.gpu_hours),
    }
    return present(shown)


def _reconciled(report: ReconciliationReport) -> ReconciliationResponse:
    found = [one.found for one in report.owners]
    ours, each_ours = shares([one.least for one in found])
    billed, each_billed = shares([one.billed for one in found])
    difference, each_difference = shares([one.difference for one in found])
    pending, each_pending = shares([one.pending for one in found])
    before, each_before = shares([one.before_adoption for one in found])
    most, each_most = shares([one.most or 0 for one in found])
    known = all(one.most is not None for one in found)
    totals: ReconciledTotals = {
        "ours": usd_of(ours),
        "oursAtMost": usd_of(most) if known else None,
        "billed": usd_of(billed),
        "difference": usd_of(difference),
        "beforeAdoption": usd_of(before),
        "pending": usd_of(pending),
        "unmanaged": usd_of(half_even(report.unmanaged)),
    }
    rows = []
    for number, one in enumerate(report.owners):
        row: ReconciledRow = {
            "upstreamId": one.upstream_id,
            "instanceId": one.record[0] if one.record else None,
            "name": one.record[1] if one.record else None,
            "state": one.found.state,
            "ours": usd_of(each_ours[number]),
            "oursAtMost": None if one.found.most is None else usd_of(each_most[number]),
            "billed": usd_of(each_billed[number]),
            "difference": usd_of(each_difference[number]),
            "beforeAdoption": usd_of(each_before[number]) if one.found.before_adoption else None,
            "pending": usd_of(each_pending[number]),
        }
        rows.append(present(row))
    shown: ReconciliationResponse = {
        "currency": "USD",
        "from": iso(report.since),
        "to": iso(report.until),
        "billKnownUntil": iso_or_none(report.known_until),
        "totals": present(totals),
        "rows": rows,
    }
    return present(shown)


def _csv(report: CostReport) -> str:
    """Write the rows as CSV (RFC 4180); a key that a spreadsheet would run is quoted by `'`."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(_COLUMNS)
    for row in report.rows:
        key = f"'{row.key}" if row.key[:1] in set("=+-@\t\r") else row.key
        bucket = "" if row.bucket is None else iso(row.bucket)
        amounts = [f"{usd_of(one):.5f}" for one in (row.amount, row.at_most)]
        writer.writerow([key, bucket, *amounts, f"{gpu_hours_of(row.gpu_hours):.4f}"])
    return text.getvalue()

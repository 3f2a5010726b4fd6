# SPDX-License-Identifier: Apache-2.0
"""Creates, lists and removes faults."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import Field, RootModel, model_validator

from novitai.emulator.api import PATHS, TABLE
from novitai.emulator.calling import JsonObject
from novitai.emulator.control.endpoint import (
    Context,
    ControlError,
    Endpoint,
    Given,
    Nothing,
    endpoint,
)
from novitai.emulator.distorting import SpoiltValue, TotalAs
from novitai.emulator.faults import (
    CREATE_PATH,
    OPERATION_PATHS,
    CallFault,
    CapacityFault,
    Fault,
    ListFault,
    OutcomeFault,
    Rule,
    Selection,
    Spoil,
    Trigger,
    matches_path,
    short,
)
from novitai.emulator.instances import Status, StatusError
from novitai.emulator.lifecycle import PULL_ERROR, WAYS, Outcome
from novitai.emulator.state import Emulator

_REASONS = {
    400: ("OPERATION_LIMIT", "invalid state change"),
    401: ("UNAUTHORIZED", "unauthorized"),
    403: ("FORBIDDEN", "forbidden"),
    404: ("RESOURCE_NOT_FOUND", "instance not found"),
    429: ("RATE_LIMIT_EXCEEDED", "rate limit exceeded"),
}

Name = Annotated[str, Field(min_length=1)]
Names = Name | Annotated[tuple[Name, ...], Field(max_length=20_000)]

Count = Annotated[int, Field(ge=0)]


class Triggered(Given):
    """Selects the matching calls to strike; without conditions, all of them."""

    nth: tuple[Annotated[int, Field(ge=1)], ...] | Annotated[int, Field(ge=1)] = ()
    every: Count = 0
    after: Count = 0
    times: Count = 0
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0

    def trigger(self) -> Trigger:
        """Return the conditions as a trigger."""
        nth = (self.nth,) if isinstance(self.nth, int) else self.nth
        return Trigger(nth, self.every, self.after, self.times, self.probability)


class CallFaultGiven(Triggered):
    """A fault of a single call."""

    kind: Literal["call"]
    path: Annotated[str, Field(min_length=1)]
    method: Literal["", "GET", "POST"] = ""
    body_contains: str = ""
    query_contains: str = ""
    query_lacks: str = ""
    when: Literal["before", "after"] | None = None
    latency_seconds: Annotated[float, Field(ge=0, le=3600)] = 0
    late_effect_seconds: Annotated[float, Field(ge=0, le=30 * 86_400)] = 0
    drop: bool = False
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    reason: str | None = None
    message: str | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    retry_after: str | Annotated[int, Field(ge=0)] | None = None
    body: Literal["empty", "malformed", "html", "list"] | None = None
    reply_id: Name | None = None
    raw_body: str | None = None
    content_type: str | None = "application/json"

    @model_validator(mode="after")
    def _means_something(self) -> CallFaultGiven:
        answers = self.drop or self.status or self._body() is not None or self.reply_id
        if not (answers or self.latency_seconds or self.late_effect_seconds):
            raise ValueError(
                "give at least one of drop, status, latencySeconds, lateEffectSeconds, body, "
                "rawBody, replyId"
            )
        if self.drop and (self.status or self._body() is not None):
            raise ValueError("a dropped connection has neither status nor body")
        if "*" not in self.path and short(self.path) not in PATHS:
            near = get_close_matches(short(self.path), PATHS, 3)
            hint = f"; similar: {', '.join(near)}" if near else ""
            raise ValueError(f"path: the API has no {self.path!r}{hint}; patterns must contain *")
        return self

    @model_validator(mode="after")
    def _names_the_id_of_a_create(self) -> CallFaultGiven:
        if self.reply_id is None:
            return self
        if not matches_path(self.path, CREATE_PATH):
            raise ValueError(f"replyId: only the reply of {CREATE_PATH} contains an instance ID")
        if self.drop or self.status or self._body() is not None or self.when == "before":
            raise ValueError("replyId: cannot be combined with drop, status, body or when=before")
        return self

    @model_validator(mode="after")
    def _is_answered_before_its_effect(self) -> CallFaultGiven:
        if not self.late_effect_seconds:
            return self
        reads = self.method == "GET" or (
            "*" not in self.path and ("POST", short(self.path)) not in TABLE
        )
        if reads or self.when == "after" or self.reply_id is not None:
            raise ValueError("lateEffectSeconds: needs a POST that is answered before its work")
        if "*" not in self.path and not self.fault().can_answer_first(self.path):
            raise ValueError(
                "lateEffectSeconds: the reply of this path depends on the work; use one of "
                f"{', '.join(OPERATION_PATHS)}, or add drop, status or a body"
            )
        return self

    def _body(self) -> str | None:
        if self.raw_body is not None:
            return self.raw_body
        bodies = {
            "empty": "",
            "malformed": '{"id": "3560b7fe',
            "html": "<html><body>502 Bad Gateway</body></html>",
            "list": "[]",
        }
        return bodies[self.body] if self.body is not None else None

    def fault(self) -> CallFault:
        """Return the fault; by default, the body or the ID is replaced after the work."""
        changes_body = self.reply_id or (self._body() is not None and not self.status)
        comes_after = changes_body and not self.late_effect_seconds
        reason, message = _REASONS.get(self.status or 0, ("UNKNOWN", "internal error"))
        return CallFault(
            path=self.path,
            method=self.method,
            body_contains=self.body_contains,
            query_contains=self.query_contains,
            query_lacks=self.query_lacks,
            when=self.when or ("after" if comes_after else "before"),
            latency=self.latency_seconds,
            late=self.late_effect_seconds,
            drop=self.drop,
            status=self.status or 0,
            reason=self.reason if self.reason is not None else reason,
            message=self.message if self.message is not None else message,
            metadata=tuple(self.metadata.items()),
            retry_after="" if self.retry_after is None else str(self.retry_after),
            reply_id=self.reply_id or "",
            raw_body=self._body(),
            content_type="text/html" if self.body == "html" else self.content_type,
        )


class CapacityFaultGiven(Triggered):
    """No free GPUs for a product, in a region, or both."""

    kind: Literal["capacity"]
    product: str = ""
    region: str = ""
    operations: Annotated[
        tuple[Literal["create", "start", "migrate"], ...], Field(min_length=1)
    ] = ("create", "start", "migrate")

    def fault(self) -> Fault:
        """Return the fault."""
        return CapacityFault(self.product, self.region, frozenset(self.operations))


class OutcomeFaultGiven(Triggered):
    """An operation that is accepted and then fails or stalls."""

    kind: Literal["outcome"]
    operation: Literal["create", "start", "stop", "restart", "migrate", "upgrade", "delete"]
    result: Literal["statusError", "pullFailure", "exited", "removed", "stuck", "neverBoots"]
    name: str = "*"
    product: str = ""
    stuck_in: Status | None = None
    ends_in: Status = Status.EXITED
    fails_after: Status | None = None
    error_state: str = "failed"
    error_message: str = "the container could not be created"

    @model_validator(mode="after")
    def _stuck_somewhere(self) -> OutcomeFaultGiven:
        way = WAYS[self.operation]
        for name, status in (("stuckIn", self.stuck_in), ("failsAfter", self.fails_after)):
            if status is not None and status not in way:
                raise ValueError(f"{name}: {self.operation} goes through {', '.join(way)}")
        return self

    def fault(self) -> Fault:
        """Return the fault."""
        return OutcomeFault(self.operation, self._outcome(), self.name, self.product)

    def _outcome(self) -> Outcome:
        way = WAYS[self.operation]
        after = self.fails_after or way[-1]
        match self.result:
            case "stuck":
                return Outcome(stuck_in=self.stuck_in or way[-1])
            case "neverBoots":
                return Outcome(boots=False)
            case "pullFailure":
                return Outcome(self.ends_in, after, PULL_ERROR)
            case "statusError":
                error = StatusError(self.error_state, self.error_message)
                return Outcome(self.ends_in, after, error)
            case "exited":
                return Outcome(Status.EXITED, after)
            case "removed":
                return Outcome(Status.REMOVED, after)


class ListFaultGiven(Triggered):
    """A list of instances with false contents."""

    kind: Literal["list"]
    query_contains: str = ""
    query_lacks: str = ""
    lag_seconds: Annotated[float, Field(ge=0, le=86_400)] = 0
    omit: Names = ()
    repeat: Names = ()
    foreign_rows: Annotated[int, Field(ge=0, le=10_000)] = 0
    spoil: Names = ()
    field: Annotated[str, Field(min_length=1)] = "name"
    value: SpoiltValue | None = None
    also_get: bool = False
    total: TotalAs = "number"
    total_delta: int = 0
    pages: Literal["repeatFirst", "repeatLast"] | None = None
    most_rows: Count = 0

    @model_validator(mode="after")
    def _means_something(self) -> ListFaultGiven:
        rows = self.lag_seconds or self.omit or self.repeat or self.foreign_rows or self.spoil
        numbers = self.total_delta or self.total != "number" or self.pages or self.most_rows
        if not (rows or numbers):
            raise ValueError(
                "give at least one of lagSeconds, omit, repeat, foreignRows, spoil, total, "
                "totalDelta, pages, mostRows"
            )
        if self.spoil and self.value is None:
            raise ValueError("spoil requires value")
        if self.value is not None and not (self.spoil or self.foreign_rows):
            raise ValueError("value requires spoil or foreignRows")
        if self.also_get and not self.spoil:
            raise ValueError("alsoGet requires spoil")
        return self

    def fault(self) -> Fault:
        """Return the fault."""
        return ListFault(
            query_contains=self.query_contains,
            query_lacks=self.query_lacks,
            lag=self.lag_seconds,
            omit=_selection(self.omit),
            repeat=_selection(self.repeat),
            foreign_rows=self.foreign_rows,
            spoil=None
            if self.value is None
            else Spoil(self.value, self.field, _selection(self.spoil), self.also_get),
            total=self.total,
            total_delta=self.total_delta,
            pages=self.pages or "",
            most_rows=self.most_rows,
        )


def _selection(names: Names) -> Selection:
    return Selection(*([names] if isinstance(names, str) else names))


class FaultGiven(
    RootModel[
        Annotated[
            CallFaultGiven | CapacityFaultGiven | OutcomeFaultGiven | ListFaultGiven,
            Field(discriminator="kind"),
        ]
    ]
):
    """A fault of one of four kinds: call, capacity, outcome, list."""


def make(context: Context, given: FaultGiven) -> JsonObject:
    """Create a fault; the reply contains its ID."""
    if isinstance(given.root, CapacityFaultGiven):
        _check_names(context.emulator, given.root)
    rule = context.emulator.faults.add(
        given.root.fault(),
        given.root.trigger(),
        given.root.model_dump(mode="json", by_alias=True, exclude_defaults=True),
    )
    return rule_view(rule)


def show_all(context: Context, _given: Nothing) -> JsonObject:
    """List all faults with the numbers of matched and struck calls."""
    return {"faults": [rule_view(rule) for rule in context.emulator.faults.rules.values()]}


def remove(context: Context, _given: Nothing) -> JsonObject:
    """Remove one fault."""
    rule = context.emulator.faults.rules.pop(context.path["id"], None)
    if rule is None:
        raise ControlError(f"no fault {context.path['id']!r}", 404)
    return rule_view(rule)


def remove_all(context: Context, _given: Nothing) -> JsonObject:
    """Remove all faults."""
    removed = len(context.emulator.faults.rules)
    context.emulator.faults.rules.clear()
    return {"removed": removed}


def _check_names(emulator: Emulator, given: CapacityFaultGiven) -> None:
    clusters = emulator.clusters.values()
    regions = {each.id for each in clusters} | {each.name for each in clusters}
    regions |= {each.name.split(" ", 1)[0] for each in clusters}
    products = {word for each in emulator.products.values() for word in (each.id, each.name)}
    products |= {word for each in emulator.cpu_products.values() for word in (each.id, each.name)}
    for field, value, known in (
        ("region", given.region, regions),
        ("product", given.product, products),
    ):
        if value and value not in known:
            near = get_close_matches(value, known, 3)
            raise ControlError(
                f"{field}: {value!r} does not exist"
                + (f"; similar: {', '.join(near)}" if near else "")
            )


def rule_view(rule: Rule) -> JsonObject:
    """Return a fault as it was requested, with its counters."""
    return {"id": rule.id, **rule.request, "matched": rule.seen, "struck": rule.fired}


ENDPOINTS: list[Endpoint] = [
    endpoint("POST", "/faults", FaultGiven, make),
    endpoint("GET", "/faults", Nothing, show_all),
    endpoint("DELETE", "/faults", Nothing, remove_all),
    endpoint("DELETE", "/faults/{id}", Nothing, remove),
]

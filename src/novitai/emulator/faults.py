# SPDX-License-Identifier: Apache-2.0
"""Faults set by tests: what they are, which calls they strike, and how often they did.

The rules only describe and select faults; the callers carry them out.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Literal, TypeVar

from novitai.emulator.calling import GPU
from novitai.emulator.instances import Instance
from novitai.emulator.lifecycle import SUCCESS, Outcome

When = Literal["before", "after"]

CREATE_PATH = "/gpu/instance/create"

OPERATION_PATHS = tuple(f"/gpu/instance/{verb}" for verb in ("start", "stop", "restart", "delete"))
"""Operations whose reply does not depend on the result of their work."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Selects the matching calls to strike; without conditions, all of them.

    Attributes:
        nth: The numbers of the matching calls to strike, from 1.
        every: Strike each n-th matching call.
        after: Spare the first n matching calls.
        times: Strike at most this many calls; 0 means no limit.
        probability: The chance for each call that meets the other conditions.
    """

    nth: tuple[int, ...] = ()
    every: int = 0
    after: int = 0
    times: int = 0
    probability: float = 1.0

    def fires(self, seen: int, fired: int, rng: random.Random) -> bool:
        """Whether to strike the matching call number `seen`, after `fired` earlier strikes."""
        if self.times and fired >= self.times:
            return False
        if seen <= self.after or (self.nth and seen not in self.nth):
            return False
        if self.every and seen % self.every:
            return False
        return self.probability >= 1 or rng.random() < self.probability


ALWAYS = Trigger()


@dataclass(frozen=True, slots=True)
class CallFault:
    """A fault of a single call.

    Attributes:
        path: A path of the API without its base path, or a pattern with `*`.
        method: Empty matches any method.
        body_contains: Match only requests whose body contains this text.
        query_contains, query_lacks: Match only requests whose query contains, or lacks, this text.
        when: `before` applies the fault instead of the work, `after` once the work is done.
        latency: Real seconds to wait at that moment.
        late: Do the work this many virtual seconds after the response; 0 does not postpone it.
        drop: Close the connection without a response.
        status: Respond with an error of this status; 0 keeps the response.
        retry_after: Value of the `Retry-After` header; empty omits it.
        reply_id: The response to a create names another instance (`misnaming.misnamed`).
        raw_body: Replaces the body of the response; None keeps it.
    """

    path: str
    method: str = ""
    body_contains: str = ""
    query_contains: str = ""
    query_lacks: str = ""
    when: When = "before"
    latency: float = 0.0
    late: float = 0.0
    drop: bool = False
    status: int = 0
    reason: str = ""
    message: str = ""
    metadata: tuple[tuple[str, str], ...] = ()
    retry_after: str = ""
    reply_id: str = ""
    raw_body: str | None = None
    content_type: str | None = None

    def matches(self, method: str, path: str, query: Mapping[str, str], body: bytes) -> bool:
        """Whether the fault matches the call."""
        if self.method and self.method != method:
            return False
        if self.body_contains and self.body_contains.encode() not in body:
            return False
        if self.reply_id and short(path) != CREATE_PATH:
            return False
        if self.late and not (method == "POST" and self.can_answer_first(path)):
            return False
        if not matches_query(query, self.query_contains, self.query_lacks):
            return False
        return matches_path(self.path, path)

    def can_answer_first(self, path: str) -> bool:
        """Whether the call can be answered, or dropped, before its work is done."""
        if self.drop or self.status or self.raw_body is not None:
            return True
        return short(path) in OPERATION_PATHS


@dataclass(frozen=True, slots=True)
class CapacityFault:
    """No free GPUs: for a product (ID or name), a region (ID or name), or both; empty means any.

    A fault with a region is evaluated once per region that could be used, a fault without a
    region once per operation; their counters count these evaluations.
    """

    product: str = ""
    region: str = ""
    operations: frozenset[str] = frozenset({"create", "start", "migrate"})

    def matches(self, operation: str, product: str, product_name: str, *regions: str) -> bool:
        """Whether this operation is refused."""
        if operation not in self.operations:
            return False
        if self.product and self.product not in {product, product_name}:
            return False
        if not regions or not self.region:
            return not regions and not self.region
        return any(self.region in {region, region.split(" ", 1)[0]} for region in regions)


@dataclass(frozen=True, slots=True)
class OutcomeFault:
    """An operation that is accepted and then fails or stalls.

    Attributes:
        operation: create, start, stop, restart, migrate, upgrade or delete.
        name, product: Match only instances whose name matches the pattern `name`, and whose
            product ID or name is `product`; an empty `product` matches any.
    """

    operation: str
    outcome: Outcome
    name: str = "*"
    product: str = ""

    def matches(self, operation: str, name: str, product: str, product_name: str) -> bool:
        """Whether the fault matches this operation on this instance."""
        if self.operation != operation or not fnmatchcase(name, self.name):
            return False
        return not self.product or self.product in {product, product_name}


class Selection:
    """Selects instances by ID, by name, or by a pattern of their name."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, *wanted: str) -> None:
        self._exact = frozenset(wanted)
        self._patterns = tuple(each for each in wanted if set("*?[") & set(each))

    def __bool__(self) -> bool:
        """Whether any selector was given."""
        return bool(self._exact)

    def has(self, instance: Instance) -> bool:
        """Whether the instance is selected."""
        return (
            instance.id in self._exact
            or instance.name in self._exact
            or any(fnmatchcase(instance.name, pattern) for pattern in self._patterns)
        )


NONE = Selection()


@dataclass(frozen=True, slots=True)
class Spoil:
    """An unreadable field of a row.

    Attributes:
        value: The value put into the field; `notObject` replaces the row itself.
        rows: The instances whose rows are spoiled; rows that the fault adds always are.
        also_get: Whether a look-up of the instance returns the spoiled row too.
    """

    value: str
    field: str = "name"
    rows: Selection = NONE
    also_get: bool = False


@dataclass(frozen=True, slots=True)
class ListFault:
    """A list of instances with false contents.

    Attributes:
        query_contains, query_lacks: Match only lists whose query contains, or lacks, this text.
        lag: Show the list as it was this many virtual seconds ago.
        omit, repeat: Instances to leave out or to show twice.
        foreign_rows: Number of rows to add that belong to no instance.
        total: How `total` is written: `number`, `absent`, `null`, `string` or `garbage`.
        total_delta: Added to `total`.
        pages: `repeatFirst` shows the first page for every page, `repeatLast` the last page for
            every page after it; empty shows the requested page.
        most_rows: Maximum page size, even if the request wants more; 0 means no limit.
    """

    query_contains: str = ""
    query_lacks: str = ""
    lag: float = 0.0
    omit: Selection = NONE
    repeat: Selection = NONE
    foreign_rows: int = 0
    spoil: Spoil | None = None
    total: str = "number"
    total_delta: int = 0
    pages: str = ""
    most_rows: int = 0

    def matches(self, query: Mapping[str, str]) -> bool:
        """Whether the fault matches the list call."""
        return matches_query(query, self.query_contains, self.query_lacks)


Fault = CallFault | CapacityFault | OutcomeFault | ListFault
_F = TypeVar("_F", CallFault, CapacityFault, OutcomeFault, ListFault)


@dataclass(slots=True)
class Rule:
    """A fault with its trigger, its counters and the request that created it."""

    id: str
    fault: Fault
    trigger: Trigger
    request: dict[str, object]
    seen: int = 0
    fired: int = 0


@dataclass(slots=True)
class Faults:
    """All rules, in order of creation; the first rule that strikes wins."""

    rng: random.Random
    rules: dict[str, Rule] = field(default_factory=dict)
    made: int = 0

    def add(self, fault: Fault, trigger: Trigger, request: dict[str, object]) -> Rule:
        """Add a rule."""
        self.made += 1
        rule = Rule(f"fault-{self.made}", fault, trigger, request)
        self.rules[rule.id] = rule
        return rule

    def for_call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes
    ) -> list[CallFault]:
        """Return the faults that strike this call: at most one before and one after the work."""
        if not self.rules:
            return []
        struck: dict[str, CallFault] = {}
        for rule, fault in self._of(CallFault):
            if fault.matches(method, path, query, body) and self._strikes(
                rule, free=fault.when not in struck
            ):
                struck[fault.when] = fault
        return list(struck.values())

    def refuses(self, operation: str, product: str, product_name: str, *regions: str) -> bool:
        """Whether a capacity fault strikes this operation, in these regions or as a whole."""
        return any(
            fault.matches(operation, product, product_name, *regions) and self._strikes(rule)
            for rule, fault in self._of(CapacityFault)
        )

    def blocks(self, product: str, product_name: str, *regions: str) -> bool:
        """Whether a capacity fault without a trigger makes the product unavailable in listings.

        It changes no counter. A fault that strikes only some creates leaves the offer available.
        """
        return any(
            rule.trigger == ALWAYS
            and (
                fault.matches("create", product, product_name)
                or fault.matches("create", product, product_name, *regions)
            )
            for rule, fault in self._of(CapacityFault)
        )

    def outcome(self, operation: str, name: str, product: str, product_name: str) -> Outcome:
        """Return how an accepted operation ends."""
        for rule, fault in self._of(OutcomeFault):
            if fault.matches(operation, name, product, product_name) and self._strikes(rule):
                return fault.outcome
        return SUCCESS

    def for_list(self, query: Mapping[str, str]) -> ListFault | None:
        """Return the fault that strikes this list call, or None."""
        for rule, fault in self._of(ListFault):
            if fault.matches(query) and self._strikes(rule):
                return fault
        return None

    def for_get(self, instance: Instance) -> Spoil | None:
        """Return how a list fault spoils the row in a look-up of one instance, or None."""
        for rule, fault in self._of(ListFault):
            spoil = fault.spoil
            if (
                spoil is not None
                and spoil.also_get
                and spoil.rows.has(instance)
                and self._strikes(rule)
            ):
                return spoil
        return None

    def _of(self, kind: type[_F]) -> Iterator[tuple[Rule, _F]]:
        for rule in self.rules.values():
            if isinstance(rule.fault, kind):
                yield rule, rule.fault

    def _strikes(self, rule: Rule, *, free: bool = True) -> bool:
        """Count a matching call and decide whether to strike it.

        If `free` is false, an earlier rule has taken its place: the call is counted as seen only.
        """
        rule.seen += 1
        if not free or not rule.trigger.fires(rule.seen, rule.fired, self.rng):
            return False
        rule.fired += 1
        return True


def short(path: str) -> str:
    """Return the path without the API's base path, as faults, counts and the call log write it."""
    return path.removeprefix(GPU) if path.startswith(GPU + "/") else path


def matches_path(pattern: str, path: str) -> bool:
    """Whether a pattern matches a path; each may be written with or without the base path."""
    if "*" in pattern:
        return fnmatchcase(path, pattern) or fnmatchcase(short(path), pattern)
    return short(pattern) == short(path)


def matches_query(query: Mapping[str, str], contains: str, lacks: str) -> bool:
    """Whether a decoded query, written `a=1&b=2`, contains one text and lacks the other."""
    if not contains and not lacks:
        return True
    written = "&".join(f"{name}={value}" for name, value in query.items())
    return contains in written and not (lacks and lacks in written)

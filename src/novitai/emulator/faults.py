# SPDX-License-Identifier: Apache-2.0
"""Faults that were asked for: what they are, which call they strike, and how often they did.

The rules say what is to go wrong; carrying it out is the business of whoever asks them.
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
"""Operations whose reply does not depend on their work."""


@dataclass(frozen=True, slots=True)
class Trigger:
    """Which of the matching calls are struck; without any condition all of them.

    Attributes:
        nth: The 1-based numbers of the matching calls.
        every: Each n-th matching call.
        after: The first calls, that many, are spared.
        times: No more than this many calls are struck; 0 means no bound.
        probability: Chance of each call that the other conditions let through.
    """

    nth: tuple[int, ...] = ()
    every: int = 0
    after: int = 0
    times: int = 0
    probability: float = 1.0

    def fires(self, seen: int, fired: int, rng: random.Random) -> bool:
        """Whether the matching call number `seen` is struck, after `fired` strikes so far."""
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
    """Something that goes wrong with a call as such.

    Attributes:
        path: A path of the API, without its base path, or a pattern with `*`.
        method: Empty for any.
        body_contains: Only requests whose body has this text in it.
        query_contains, query_lacks: Only requests whose query has, or has not, this text in it.
        when: Before the work is done, and instead of it; or after it was done.
        latency: Real seconds of waiting at that moment.
        late: The work is done this many virtual seconds after the answer; 0 does not postpone it.
        drop: The connection is closed without an answer.
        status: The answer is an error of this status; 0 leaves it alone.
        retry_after: Value of a `Retry-After` header; empty for none.
        reply_id: The answer to a create names another instance (`misnaming.misnamed`).
        raw_body: The answer's body is this, whatever it should have been; None leaves it alone.
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
        """Whether the call is one of those this fault is about."""
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
    """No GPUs: for a product (id or name), a region (id or name), or both; empty means any.

    A fault with a region is asked once for each region that could be used, one without a region
    once for the operation as a whole, so that both count what they say.
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
    """An operation that is accepted and then turns out badly.

    Attributes:
        operation: create, start, stop, restart, migrate, upgrade or delete.
        name, product: Only instances whose name, or product id or name, matches the pattern.
    """

    operation: str
    outcome: Outcome
    name: str = "*"
    product: str = ""

    def matches(self, operation: str, name: str, product: str, product_name: str) -> bool:
        """Whether this operation on this instance turns out so."""
        if self.operation != operation or not fnmatchcase(name, self.name):
            return False
        return not self.product or self.product in {product, product_name}


class Selection:
    """Instances by id, by name, or by a pattern of their name."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, *wanted: str) -> None:
        self._exact = frozenset(wanted)
        self._patterns = tuple(each for each in wanted if set("*?[") & set(each))

    def __bool__(self) -> bool:
        """Whether it selects anything."""
        return bool(self._exact)

    def has(self, instance: Instance) -> bool:
        """Whether the instance is one of them."""
        return (
            instance.id in self._exact
            or instance.name in self._exact
            or any(fnmatchcase(instance.name, pattern) for pattern in self._patterns)
        )


NONE = Selection()


@dataclass(frozen=True, slots=True)
class Spoil:
    """A field of a row that cannot be read.

    Attributes:
        value: What stands in the field; `notObject` replaces the row itself.
        rows: Which rows of instances are spoiled; rows that the fault adds always are.
        also_get: Whether the row is as bad when the instance is asked for by its id.
    """

    value: str
    field: str = "name"
    rows: Selection = NONE
    also_get: bool = False


@dataclass(frozen=True, slots=True)
class ListFault:
    """A list of instances that does not tell the truth.

    Attributes:
        query_contains, query_lacks: Only lists whose query has, or has not, this text in it.
        lag: The list is as it was this many virtual seconds ago.
        omit, repeat: Instances that are left out or shown twice.
        foreign_rows: How many rows are added that no instance belongs to.
        total: How `total` is written: `number`, `absent`, `null`, `string` or `garbage`.
        total_delta: Added to `total`.
        pages: `repeatFirst` shows the first page for every page, `repeatLast` the last page for
            every page after it; empty shows what is asked for.
        most_rows: The largest page, whatever is asked for; 0 for no bound.
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
        """Whether the list is one of those this fault is about."""
        return matches_query(query, self.query_contains, self.query_lacks)


Fault = CallFault | CapacityFault | OutcomeFault | ListFault
_F = TypeVar("_F", CallFault, CapacityFault, OutcomeFault, ListFault)


@dataclass(slots=True)
class Rule:
    """A fault with its trigger, its counters and the request it came from."""

    id: str
    fault: Fault
    trigger: Trigger
    request: dict[str, object]
    seen: int = 0
    fired: int = 0


@dataclass(slots=True)
class Faults:
    """All rules, in the order they were made; the first that strikes wins."""

    rng: random.Random
    rules: dict[str, Rule] = field(default_factory=dict)
    made: int = 0

    def add(self, fault: Fault, trigger: Trigger, request: dict[str, object]) -> Rule:
        """Keep a new rule."""
        self.made += 1
        rule = Rule(f"fault-{self.made}", fault, trigger, request)
        self.rules[rule.id] = rule
        return rule

    def for_call(
        self, method: str, path: str, query: Mapping[str, str], body: bytes
    ) -> list[CallFault]:
        """The faults that strike this call, at most one before and one after the work."""
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
        """Whether a capacity fault strikes this operation: in these regions, or as a whole."""
        return any(
            fault.matches(operation, product, product_name, *regions) and self._strikes(rule)
            for rule, fault in self._of(CapacityFault)
        )

    def blocks(self, product: str, product_name: str, *regions: str) -> bool:
        """Whether a lasting capacity fault makes the product unavailable to look at.

        It looks only, and counts nothing: a fault that strikes some creates leaves the offer up.
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
        """How an accepted operation turns out."""
        for rule, fault in self._of(OutcomeFault):
            if fault.matches(operation, name, product, product_name) and self._strikes(rule):
                return fault.outcome
        return SUCCESS

    def for_list(self, query: Mapping[str, str]) -> ListFault | None:
        """The fault that strikes this list call."""
        for rule, fault in self._of(ListFault):
            if fault.matches(query) and self._strikes(rule):
                return fault
        return None

    def for_get(self, instance: Instance) -> Spoil | None:
        """What a list fault does to the row when one instance is asked for."""
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
        """Count a matching call; a rule that comes too late (`free` is false) counts it too."""
        rule.seen += 1
        if not free or not rule.trigger.fires(rule.seen, rule.fired, self.rng):
            return False
        rule.fired += 1
        return True


def short(path: str) -> str:
    """A path as faults, counts and the call log write it: without the API's base path."""
    return path.removeprefix(GPU) if path.startswith(GPU + "/") else path


def matches_path(pattern: str, path: str) -> bool:
    """Whether a pattern means this path, be either written with the base path or without."""
    if "*" in pattern:
        return fnmatchcase(path, pattern) or fnmatchcase(short(path), pattern)
    return short(pattern) == short(path)


def matches_query(query: Mapping[str, str], contains: str, lacks: str) -> bool:
    """Whether a decoded query, written `a=1&b=2`, has one text in it and has not the other."""
    if not contains and not lacks:
        return True
    written = "&".join(f"{name}={value}" for name, value in query.items())
    return contains in written and not (lacks and lacks in written)

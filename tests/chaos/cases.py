# SPDX-License-Identifier: Apache-2.0
"""The matrix of the model: verbs, faults of Novita and of the receiver, workers, crash points."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from novitai.crash_points import CrashPoint

Reached = Mapping[tuple[CrashPoint, str], int]


class Lot(StrEnum):
    """The lot of the process at the crash point."""

    KILL = "kill"
    KILL_TWICE = "kill twice"
    FREEZE = "freeze"


class Act(StrEnum):
    """The act of a life while a process crashes. Its preparation runs without crashes."""

    CREATE = "create"
    CREATE_DELETE = "create+delete"
    START = "start"
    STOP = "stop"
    RESTART = "restart"
    DELETE = "delete"
    DELETE_AGAIN = "delete+return"
    STOP_ALL = "stop-all"
    LIMIT = "limit"
    ADOPT = "adopt+delete"
    MIGRATION = "migration"
    CLEAN_UP = "clean-up"


CREATES: Final = frozenset({Act.CREATE, Act.CREATE_DELETE, Act.CLEAN_UP})
_CALLS: Final[Mapping[Act, Sequence[str]]] = {
    Act.START: ["start"],
    Act.STOP: ["stop"],
    Act.RESTART: ["restart"],
    Act.DELETE: ["delete"],
    Act.DELETE_AGAIN: ["delete"],
    Act.STOP_ALL: ["stop"],
    Act.LIMIT: ["stop"],
    Act.ADOPT: ["delete"],
    Act.CREATE_DELETE: ["delete"],
    Act.CLEAN_UP: ["delete"],
}
"""The calls on an instance that a life is sure to make."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that ends after it has struck a few times.

    Attributes:
        name: Its name in the table.
        rules: The faults of the emulator.
        refusals: How many messages the receiver refuses.
        losses: How many messages the receiver takes without an answer.
        hides: Whether listings hide a new instance for longer than an attempt is waited for, so
            that a second purchase, and the end of the first, are what is promised.
    """

    name: str
    rules: tuple[Mapping[str, Any], ...] = ()
    refusals: int = 0
    losses: int = 0
    hides: bool = False


def _call(path: str, **how: Any) -> Mapping[str, Any]:
    return {"kind": "call", "path": path, "times": 1, **how}


_CREATE: Final = "/gpu/instance/create"
NO_FAULT: Final = Fault("none")
OF_CREATES: Final = (
    Fault("create dropped after", (_call(_CREATE, drop=True, when="after"),)),
    Fault("create dropped before", (_call(_CREATE, drop=True, when="before"),)),
    Fault("create 500 after", (_call(_CREATE, status=500, when="after"),)),
    Fault("create malformed", (_call(_CREATE, body="malformed"),)),
    Fault("create 429", (_call(_CREATE, status=429, retryAfter=3),)),
    Fault("create no capacity", (_call(_CREATE, status=400, reason="INSUFFICIENT_RESOURCE"),)),
    Fault(
        "create hidden",
        (
            _call(_CREATE, drop=True, when="after"),
            {"kind": "list", "lagSeconds": 60, "times": 25},
        ),
        hides=True,
    ),
)
OF_ALL: Final = (
    NO_FAULT,
    Fault("listing 503", (_call("/gpu/instances", status=503, times=3),)),
    Fault("listing malformed", (_call("/gpu/instances", body="malformed", times=2),)),
    Fault("listing incomplete", ({"kind": "list", "totalDelta": 1, "times": 4},)),
    Fault("key refused", (_call("*", status=401, times=2),)),
    Fault("receiver refuses", refusals=1),
    Fault("receiver silent", losses=1),
)


def faults_of(act: Act) -> list[Fault]:
    """List the faults that can strike a life."""
    found = list(OF_ALL)
    if act in CREATES:
        found += OF_CREATES
    for call in _CALLS.get(act, ()):
        path = f"/gpu/instance/{call}"
        found += [
            Fault(f"{call} dropped after", (_call(path, drop=True, when="after"),)),
            Fault(f"{call} 503 before", (_call(path, status=503, when="before"),)),
            Fault(f"{call} 400 after", (_call(path, status=400, when="after"),)),
        ]
        if call == "delete":
            found.append(Fault("delete 404 before", (_call(path, status=404, when="before"),)))
    return found


@dataclass(frozen=True, slots=True)
class Group:
    """The cases that differ only in the crash."""

    act: Act
    fault: Fault
    workers: int

    @property
    def seed(self) -> str:
        """The source of the random choices of its life without a crash."""
        return f"{self.act}/{self.fault.name}/{self.workers}"


GROUPS: Final = [
    Group(act, fault, workers) for act in Act for fault in faults_of(act) for workers in (1, 3)
]


@dataclass(frozen=True, slots=True)
class Case:
    """One life with a crash; `name` repeats it.

    Attributes:
        group: The act, the fault and the number of workers.
        number: Which of the group's cases.
        point: Where the process crashes; None lets it live.
        subject: The subject of the crash point.
        nth: How often it is reached before.
        lot: The lot of the process there.
    """

    group: Group
    number: int
    point: CrashPoint | None = None
    subject: str = ""
    nth: int = 1
    lot: Lot = Lot.KILL

    @property
    def name(self) -> str:
        """The name that `find` takes."""
        return f"{GROUPS.index(self.group)}-{self.number}"

    @property
    def seed(self) -> int:
        """The source of its random choices."""
        return random.Random(f"{self.group.seed}#{self.number}").getrandbits(48)

    def __str__(self) -> str:
        where = f"{self.point}/{self.subject} no. {self.nth}" if self.point else "no crash"
        group = self.group
        return (
            f"[{self.name}] {group.act}, {group.fault.name}, {group.workers}w: {self.lot} {where}"
        )


def choose(group: Group, number: int, reached: Reached) -> Case:
    """Choose the crash of a case, from the points that the group's life without a crash reached.

    Number 0 is that life. Each round of numbers goes through all points.
    """
    if number == 0:
        return Case(group, 0)
    points = sorted(reached, key=lambda one: (one[0].value, one[1]))
    # Each group begins elsewhere, so that few cases of each group also meet every point.
    point, subject = points[(number - 1 + 7 * GROUPS.index(group)) % len(points)]
    chance = random.Random(f"{group.seed}#{number}!")
    return Case(
        group,
        number,
        point,
        subject,
        chance.randint(1, min(reached[point, subject], 6)),
        chance.choices(list(Lot), (6, 1, 3))[0],
    )

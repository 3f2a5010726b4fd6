# SPDX-License-Identifier: Apache-2.0
"""The limits of keys, as they are stored and as instances inherit them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from novitai.domain.budgets import BudgetPeriod
from novitai.domain.key_limits import (
    KeyBudget,
    KeyLimits,
    key_limits_from_json,
    key_limits_to_json,
)
from novitai.domain.limit_review import Situation, next_deadline
from novitai.domain.limits import (
    MINUTE,
    InheritedLimits,
    LimitAction,
    LimitMemory,
    LimitSettings,
    StopReason,
    inherited_from_json,
    inherited_to_json,
)
from novitai.testing import an_instance

NOW = 1_760_000_000_000
ALL = KeyLimits(3, 250_000, 60, KeyBudget(2_000_000, BudgetPeriod.DAY))


@pytest.mark.parametrize("limits", [ALL, KeyLimits(), replace(ALL, budget=None)])
def test_limits_are_read_as_they_were_stored(limits: KeyLimits) -> None:
    """All of them, and none."""
    assert key_limits_from_json(key_limits_to_json(limits)) == limits


@pytest.mark.parametrize("broken", [{}, {"max_instances": "3"}, {"max_run_minutes": 1.5}])
def test_a_damaged_record_is_no_key_without_limits(broken: dict[str, object]) -> None:
    """It raises, because a limit that cannot be read must not be ignored."""
    stored = {**key_limits_to_json(ALL), **broken} if broken else {}
    with pytest.raises((KeyError, TypeError)):
        key_limits_from_json(stored)


def test_an_instance_inherits_price_and_length() -> None:
    """Number and budget are of all instances together."""
    inherited = ALL.inherited()
    assert inherited == InheritedLimits(250_000, 60)
    assert inherited_from_json(inherited_to_json(InheritedLimits(1, 2, 3))) == InheritedLimits(
        1, 2, 3
    )
    assert KeyLimits(max_instances=3).inherited() is None
    assert KeyLimits().or_none() is None


@pytest.mark.parametrize(
    ("limits", "inherited", "extended", "minutes", "reason"),
    [
        (None, InheritedLimits(None, 60), 0, 60, StopReason.KEY_LIMIT),
        (None, InheritedLimits(None, 60, NOW + 90 * MINUTE), 0, 90, StopReason.KEY_LIMIT),
        (None, InheritedLimits(None, 60, NOW - 1), 0, 60, StopReason.KEY_LIMIT),
        (
            None,
            InheritedLimits(None, 60),
            5,
            65,
            StopReason.KEY_LIMIT,
        ),
        (
            LimitSettings(max_run_minutes=60),
            InheritedLimits(None, 60),
            0,
            60,
            StopReason.MAX_RUN_MINUTES,
        ),
        (
            LimitSettings(max_run_minutes=90),
            InheritedLimits(None, 60),
            0,
            60,
            StopReason.KEY_LIMIT,
        ),
        (
            LimitSettings(max_run_minutes=60, on_limit=LimitAction.DELETE),
            InheritedLimits(None, 60),
            0,
            60,
            StopReason.KEY_LIMIT,
        ),
    ],
)
def test_the_earliest_limit_wins(
    limits: LimitSettings | None,
    inherited: InheritedLimits,
    extended: int,
    minutes: int,
    reason: StopReason,
) -> None:
    """At the same moment the own limit, but a stop before a deletion."""
    situation = Situation(
        now=NOW,
        limits=limits,
        inherited=inherited,
        memory=LimitMemory(key_extension_minutes=extended),
        began_at=NOW,
    )
    deadline = next_deadline(situation)
    assert deadline is not None
    assert ((deadline.at - NOW) // MINUTE, deadline.reason) == (minutes, reason)
    assert deadline.action is LimitAction.STOP


def test_an_inherited_price_ends_no_run() -> None:
    """It bounds what is bought and started."""
    situation = Situation(now=NOW, inherited=InheritedLimits(1), began_at=NOW)
    assert next_deadline(situation) is None


def test_a_new_run_has_no_extension() -> None:
    """An admin key has granted it for the run before."""
    memory = LimitMemory(key_extension_minutes=5)
    assert memory.for_new_run().key_extension_minutes == 0
    assert memory.for_key_extension(2).key_extension_minutes == 7


def test_the_shorter_run_is_reserved() -> None:
    """That of the key or that of the instance; none where an admin key has set a time."""
    limits, inherited = LimitSettings(max_run_minutes=30), InheritedLimits(None, 20)
    assert an_instance(limits=limits).longest_minutes == 30
    assert an_instance(limits=limits, inherited=inherited).longest_minutes == 20
    lifted = replace(inherited, until=NOW)
    assert an_instance(inherited=lifted).longest_minutes is None

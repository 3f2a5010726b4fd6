# SPDX-License-Identifier: Apache-2.0
"""The state machine: each operation takes an instance and returns the changed instance.

Nothing is scheduled here. An operation cuts the timeline at `now` and appends the next steps
(upstream.md §6 and §7).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from novitai.emulator.config import (
    NOTICE_SECONDS,
    PROTECTION_SECONDS,
    Delays,
)
from novitai.emulator.errors import Refusal, invalid_state_change
from novitai.emulator.instances import (
    GONE,
    NEVER,
    NO_ERROR,
    BillingMode,
    Instance,
    Phase,
    SpotPlan,
    SpotStatus,
    Status,
    StatusError,
    Step,
    phase,
)

KEPT_STEPS = 48
"""How many past steps of a timeline are kept, for lists with a lag."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an accepted operation ends if it does not simply succeed.

    Attributes:
        ends_in: The status in which it fails, with `error`; None if it does not fail.
        fails_after: The last status before the failure.
        stuck_in: The status in which it stays forever.
        boots: False if the services never answer.
    """

    ends_in: Status | None = None
    fails_after: Status | None = None
    error: StatusError = NO_ERROR
    stuck_in: Status | None = None
    boots: bool = True


SUCCESS = Outcome()

PULL_ERROR = StatusError("imagePullFailed", "failed to pull image: not found or access denied")

PULL_FAILURE = Outcome(Status.EXITED, Status.PULLING, PULL_ERROR)

CREATE = (Status.PENDING, Status.TO_CREATE, Status.CREATING, Status.PULLING)
START = (Status.TO_START, Status.STARTING)
STOP = (Status.TO_STOP, Status.STOPPING)
RESTART = (Status.TO_RESTART, Status.RESTARTING)
REMOVE = (Status.TO_REMOVE, Status.REMOVING)
RESET = (Status.TO_RESET, Status.RESETTING, Status.PULLING)
MIGRATE = (Status.MIGRATING,)
FREEZE = (Status.FREEZING,)

WAYS = {
    "create": CREATE,
    "start": START,
    "stop": STOP,
    "restart": RESTART,
    "migrate": MIGRATE,
    "upgrade": RESET,
    "delete": REMOVE,
}
"""The statuses that each operation passes through before its final status."""

_DELAY_OF = {
    Status.PENDING: "pending",
    Status.TO_CREATE: "to_create",
    Status.CREATING: "creating",
    Status.PULLING: "pulling",
    Status.TO_START: "to_start",
    Status.STARTING: "starting",
    Status.TO_STOP: "to_stop",
    Status.STOPPING: "stopping",
    Status.TO_RESTART: "to_restart",
    Status.RESTARTING: "restarting",
    Status.TO_REMOVE: "to_remove",
    Status.REMOVING: "removing",
    Status.TO_RESET: "to_reset",
    Status.RESETTING: "resetting",
    Status.MIGRATING: "migrating",
    Status.FREEZING: "freezing",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """The delay ranges and the random generator that operations use."""

    delays: Delays
    rng: random.Random

    def plan(
        self, now: float, way: tuple[Status, ...], end: Status, outcome: Outcome = SUCCESS
    ) -> tuple[Step, ...]:
        """Return the steps through `way` to `end`, or to the failure that `outcome` sets."""
        steps: list[Step] = []
        at = now
        for status in way:
            steps.append(Step(at, status))
            if status is outcome.stuck_in:
                return tuple(steps)
            at += self.delays.draw(self.rng, _DELAY_OF[status])
            if outcome.ends_in is not None and status is outcome.fails_after:
                break
        if outcome.ends_in is not None:
            steps.append(Step(at, outcome.ends_in, outcome.error))
        else:
            steps.append(Step(at, end))
        return tuple(steps)

    def booted_at(self, steps: tuple[Step, ...], outcome: Outcome = SUCCESS) -> float:
        """Return when the services begin to answer after the last of `steps`, or NEVER."""
        last = steps[-1]
        if last.status is not Status.RUNNING or not outcome.boots:
            return NEVER
        return last.at + self.delays.draw(self.rng, "boot")


def require(instance: Instance, now: float, *allowed: Status) -> None:
    """Check that the instance is in one of the allowed statuses.

    Raises:
        Refusal: It is not.
    """
    if phase(instance, now).status not in allowed:
        raise invalid_state_change()


def start(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Start an exited instance; a spot instance loses its planned reclaim.

    Raises:
        Refusal: The instance is not exited.
    """
    require(instance, now, Status.EXITED)
    return _bring_up(replace(instance, spot=None), now, pace, START, outcome)


def stop(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Stop a running instance.

    Raises:
        Refusal: The instance is not running.
    """
    require(instance, now, Status.RUNNING)
    return _follow(instance, now, pace.plan(now, STOP, Status.EXITED, outcome))


def restart(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Restart a running instance.

    Raises:
        Refusal: The instance is not running.
    """
    require(instance, now, Status.RUNNING)
    return _bring_up(instance, now, pace, RESTART, outcome)


def remove(
    instance: Instance, now: float, pace: Pace, by: str, outcome: Outcome = SUCCESS
) -> Instance:
    """Delete an instance in any status; a second delete changes nothing.

    Raises:
        Refusal: The instance is prepaid and its term has not ended.
    """
    if instance.billing_mode is BillingMode.MONTHLY and instance.end_time > now:
        raise Refusal(
            400, "PREPAID_INSTANCE_NOT_SUPPORT_RELEASE", "prepaid instance does not support release"
        )
    if phase(instance, now).status in GONE:
        return instance
    gone = _follow(instance, now, pace.plan(now, REMOVE, Status.REMOVED, outcome))
    return replace(gone, deleted_at=now, deleted_by=by, held=None)


def migrate(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Move an instance to another node; afterwards it has the status it had before.

    Raises:
        Refusal: The instance is neither running nor exited, or its reclaim is in progress.
    """
    seen = phase(instance, now)
    if seen.status not in {Status.RUNNING, Status.EXITED} or seen.spot in {
        SpotStatus.NOTIFIED,
        SpotStatus.RECLAIMING,
    }:
        raise invalid_state_change()
    moved = replace(instance, spot=None)
    steps = pace.plan(now, MIGRATE, seen.status, outcome)
    return _brought_up(moved, now, pace, steps, outcome)


def reset(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Recreate the container, as an upgrade does.

    Raises:
        Refusal: The instance is neither running nor exited.
    """
    require(instance, now, Status.RUNNING, Status.EXITED)
    return _bring_up(instance, now, pace, RESET, outcome)


def can_freeze(instance: Instance, now: float) -> bool:
    """Whether the instance runs, or is about to, and is not prepaid."""
    seen = phase(instance, now)
    return instance.billing_mode is not BillingMode.MONTHLY and seen.status not in {
        *STOP,
        *FREEZE,
        *GONE,
        Status.EXITED,
    }


def freeze(instance: Instance, now: float, pace: Pace) -> Instance:
    """Freeze an instance that is no longer paid: `freezing`, then `exited`.

    What the API does in this case is not known (upstream.md §20).
    """
    return _follow(instance, now, pace.plan(now, FREEZE, Status.EXITED))


def jump(instance: Instance, now: float, status: Status, error: StatusError = NO_ERROR) -> Instance:
    """Set an instance's status at once; Novita's API has no such operation."""
    changed = _follow(replace(instance, held=None), now, (Step(now, status, error),))
    if status not in GONE:
        changed = replace(changed, deleted_at=NEVER, deleted_by="")
    if status is Status.RUNNING:
        return replace(changed, booted_at=now, starts=instance.starts + 1, spot=None)
    return changed


def schedule_reclaim(
    instance: Instance, now: float, pace: Pace, *, notice: float = NOTICE_SECONDS, protect: bool
) -> Instance:
    """Announce the reclaim of a spot instance, `notice` virtual seconds before it happens.

    With `protect`, the announcement waits for the end of the protected first hour.

    Raises:
        ValueError: The instance is not a spot instance.
    """
    if instance.billing_mode is not BillingMode.SPOT:
        raise ValueError("only a spot instance can be reclaimed")
    at = max(now, instance.created_at + PROTECTION_SECONDS) if protect else now
    plan = instance.spot
    if plan is not None and plan.notified_at <= now < plan.reclaim_at:
        at = plan.notified_at
    reclaim_at = max(at, now) + notice
    ended_at = reclaim_at + pace.delays.draw(pace.rng, "reclaiming")
    return replace(instance, spot=SpotPlan(at, reclaim_at, ended_at))


def is_visible(instance: Instance, seen: Phase, now: float, linger: float) -> bool:
    """Whether the API shows the instance at virtual time `now`."""
    if now < instance.created_at:
        return False
    return seen.status is not Status.REMOVED or now < seen.since + linger


def _bring_up(
    instance: Instance, now: float, pace: Pace, way: tuple[Status, ...], outcome: Outcome
) -> Instance:
    return _brought_up(instance, now, pace, pace.plan(now, way, Status.RUNNING, outcome), outcome)


def _brought_up(
    instance: Instance, now: float, pace: Pace, steps: tuple[Step, ...], outcome: Outcome
) -> Instance:
    followed = _follow(instance, now, steps)
    return replace(followed, starts=instance.starts + 1, booted_at=pace.booted_at(steps, outcome))


def _follow(instance: Instance, now: float, steps: tuple[Step, ...]) -> Instance:
    """Cut the timeline at `now` and append `steps`."""
    past = tuple(step for step in instance.steps if step.at < now)
    return replace(instance, steps=(*past[-KEPT_STEPS:], *steps))

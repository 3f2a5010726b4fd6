# SPDX-License-Identifier: Apache-2.0
"""The status machine: every operation takes an instance and gives the one that follows.

Nothing is scheduled here. An operation cuts the timeline at the present and appends what comes
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
"""How much of a timeline's past is kept, for listings that lag."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an operation that was accepted turns out, where it does not simply succeed.

    Attributes:
        ends_in: The status it fails into, with `error`; None if it does not fail.
        fails_after: The status after which it fails.
        stuck_in: A status that it enters and does not leave.
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

WAYS = {
    "create": CREATE,
    "start": START,
    "stop": STOP,
    "restart": RESTART,
    "migrate": MIGRATE,
    "upgrade": RESET,
    "delete": REMOVE,
}
"""The statuses each operation goes through before its end."""

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
}


@dataclass(frozen=True, slots=True)
class Pace:
    """The delays and the randomness that operations draw from."""

    delays: Delays
    rng: random.Random

    def plan(
        self, now: float, way: tuple[Status, ...], end: Status, outcome: Outcome = SUCCESS
    ) -> tuple[Step, ...]:
        """The steps through `way` to `end`, or to what `outcome` makes of it."""
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
        """When the services answer after the last of `steps`."""
        last = steps[-1]
        if last.status is not Status.RUNNING or not outcome.boots:
            return NEVER
        return last.at + self.delays.draw(self.rng, "boot")


def require(instance: Instance, now: float, *allowed: Status) -> None:
    """Check the status that an operation starts from.

    Raises:
        Refusal: It is not one of those allowed.
    """
    if phase(instance, now).status not in allowed:
        raise invalid_state_change()


def start(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Start an exited instance; a reclaimed spot instance begins a new spot life.

    Raises:
        Refusal: It is not exited.
    """
    require(instance, now, Status.EXITED)
    return _bring_up(replace(instance, spot=None), now, pace, START, outcome)


def stop(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Stop a running instance.

    Raises:
        Refusal: It is not running.
    """
    require(instance, now, Status.RUNNING)
    return _follow(instance, now, pace.plan(now, STOP, Status.EXITED, outcome))


def restart(instance: Instance, now: float, pace: Pace, outcome: Outcome = SUCCESS) -> Instance:
    """Restart a running instance.

    Raises:
        Refusal: It is not running.
    """
    require(instance, now, Status.RUNNING)
    return _bring_up(instance, now, pace, RESTART, outcome)


def remove(
    instance: Instance, now: float, pace: Pace, by: str, outcome: Outcome = SUCCESS
) -> Instance:
    """Delete an instance, whatever it is doing; a second delete changes nothing.

    Raises:
        Refusal: It is prepaid, and not over.
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
    """Move an instance to another node; it comes back in the status it had.

    Raises:
        Refusal: It is neither running nor exited, or its reclaim is under way.
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
    """Make the container anew, as an upgrade does.

    Raises:
        Refusal: It is neither running nor exited.
    """
    require(instance, now, Status.RUNNING, Status.EXITED)
    return _bring_up(instance, now, pace, RESET, outcome)


def jump(instance: Instance, now: float, status: Status, error: StatusError = NO_ERROR) -> Instance:
    """Put an instance into a status at once; this is nothing that upstream's API offers."""
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
        ValueError: It is not a spot instance.
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
    """Whether the API still knows the instance at virtual time `now`."""
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

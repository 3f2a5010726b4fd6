# SPDX-License-Identifier: Apache-2.0
"""Corrects times in the tables that lie in the future because the clock was ahead.

The time of a past event becomes now. A scheduled time becomes now plus the longest wait that its
rule allows. Times that users gave (when a key expires, when an instance was last used) and the
times of the event log are not changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Connection, Table, case, or_, select, update

from novitai.domain.operation import AttemptState
from novitai.domain.quote import VALID_FOR
from novitai.store import tables
from novitai.store.queries import autostop, billing, changes, instances, limits
from novitai.store.queries.operations import dump_progress, load_progress, write_progress

TOLERATED: Final = 2_000
"""Milliseconds that a time may lie ahead, because the clocks of machines differ."""
LONGEST_STEP_PAUSE: Final = 75_000
LONGEST_LEASE: Final = 120_000
LONGEST_BILL_PAUSE: Final = 3_600_000
LONGEST_DELIVERY_PAUSE: Final = 27 * 3_600_000
SEND_WITHIN: Final = 10_000

_HAPPENED: Final[Mapping[Table, tuple[str, ...]]] = {
    tables.instances: (
        "updated_at",
        "bought_at",
        "confirmed_at",
        "first_ready_at",
        "ready_at",
        "started_at",
        "stopped_at",
        "terminated_at",
        "released_at",
        "acted_at",
        "error_at",
        "identity_told_at",
        "late_call_at",
        "obs_at",
        "obs_missing_since",
        "obs_unlisted_since",
        "obs_run_began_at",
        "obs_exited_at",
    ),
    tables.operations: ("created_at", "updated_at"),
    tables.attempts: ("created_at", "ended_at", "unseen_since"),
    tables.listings: ("began_at", "complete_at", "whole_at"),
    tables.billing_states: ("since", "known_at", "counts_after", "absent_by"),
    tables.billing_spans: ("began_after", "began_by", "ended_after", "ended_by"),
    tables.listed_instances: (
        "first_listed_at",
        "last_listed_at",
        "orphan_at",
        "dismissed_at",
        "deleted_at",
    ),
    tables.workers: ("started_at", "seen_at"),
    tables.deliveries: ("created_at",),
    tables.webhooks: ("failing_since", "failed_at"),
    tables.api_keys: ("last_used_at",),
    tables.idempotency_keys: ("created_at",),
    tables.quotes: ("created_at",),
    tables.cost_findings: ("told_at",),
}
_UNSETTLED: Final = tuple(state.value for state in AttemptState if not state.settled)


def pull_back(connection: Connection, now: int, *, placement_deadline: int) -> int:
    """Correct every time that lies too far ahead.

    Args:
        connection: A write transaction.
        now: Unix milliseconds.
        placement_deadline: Milliseconds within which an instance must be bought.

    Returns:
        How many rows were changed.
    """
    # An attempt's times are compared with upstream's clock by `clock_offset`, so moving its times
    # back raises the offset by the same amount.
    attempts = tables.attempts
    ahead = attempts.c.created_at - now
    connection.execute(
        update(attempts)
        .where(attempts.c.created_at > now + TOLERATED, attempts.c.clock_offset.is_not(None))
        .values(clock_offset=attempts.c.clock_offset + ahead)
    )
    changed = 0
    books = billing.books_ahead(connection, now + TOLERATED)
    for table, names in _HAPPENED.items():
        changed += _limit(connection, table, dict.fromkeys(names, TOLERATED), now, reset=True)
    for table, longest in _later(placement_deadline).items():
        changed += _limit(connection, table, longest, now, reset=False)
    billing.recount(connection, books)
    billing.forget_expiry(connection, books)
    instances.forget_digests(connection, [instance_id for instance_id, _ in books])
    changed += limits.pull_back(connection, latest=now + TOLERATED, now=now)
    changed += autostop.pull_back(connection, latest=now + TOLERATED, now=now)
    return changed + _pull_back_memories(connection, now)


def pass_over(connection: Connection, seconds: float, *, now: int) -> None:
    """Exclude a forward jump of the clock from all waits.

    The counts of missing instances and unseen attempts restart, and the deadlines and waits of
    operations move by the jump.

    Args:
        connection: A write transaction.
        seconds: By how much the clock jumped forward.
        now: Unix milliseconds after the jump.
    """
    attempts, operations = tables.attempts, tables.operations
    connection.execute(
        update(attempts)
        .where(attempts.c.state.in_(_UNSETTLED))
        .values(unseen_count=0, unseen_since=now)
    )
    seen = tables.instances.c
    missing = or_(seen.obs_missing_count > 0, seen.obs_unlisted_count > 0)
    connection.execute(
        update(tables.instances)
        .where(missing, ~tables.instances.c.obs_gone)
        .values(
            obs_missing_since=None,
            obs_missing_count=0,
            obs_unlisted_since=None,
            obs_unlisted_count=0,
            obs_digest=None,
        )
    )
    moved = int(seconds * 1000)
    shift_runs(connection, moved, now=now)
    for operation_id, text in connection.execute(
        select(operations.c.id, operations.c.memory).where(~operations.c.done)
    ).all():
        postponed = load_progress(text).postponed(moved, now)
        connection.execute(
            update(operations)
            .where(operations.c.id == operation_id)
            .values(memory=dump_progress(postponed), deadline_at=operations.c.deadline_at + moved)
        )


def shift_runs(connection: Connection, moved: int, *, now: int) -> None:
    """Keep the lengths of runs and stops after a jump of the clock, and review all limits.

    Args:
        connection: A write transaction.
        moved: By how many milliseconds the clock jumped; negative if it went back.
        now: Unix milliseconds after the jump.
    """
    table = tables.instances
    for column in (table.c.obs_run_began_at, table.c.obs_exited_at):
        connection.execute(
            update(table).where(column.is_not(None)).values({column: column + moved})
        )
    _shift_ledger(connection, moved)
    limits.make_due(connection, now)


def _shift_ledger(connection: Connection, moved: int) -> None:
    """Keep the lengths of what is being billed after a jump of the clock."""
    states, spans = tables.billing_states, tables.billing_spans
    for column in (states.c.since, states.c.known_at, states.c.counts_after, states.c.absent_by):
        connection.execute(
            update(states)
            .where(~states.c.ended, column.is_not(None))
            .values({column: column + moved})
        )
    for column in (
        spans.c.began_after,
        spans.c.began_by,
        spans.c.expires_after,
        spans.c.expires_by,
    ):
        connection.execute(
            update(spans)
            .where(spans.c.ended_by.is_(None), column.is_not(None))
            .values({column: column + moved})
        )
    owners = connection.execute(select(states.c.instance_id).where(~states.c.ended)).scalars()
    changes.note(connection, set(owners))


def _later(placement_deadline: int) -> Mapping[Table, Mapping[str, int]]:
    return {
        tables.operations: {
            "lease_until": LONGEST_LEASE,
            "next_step_at": LONGEST_STEP_PAUSE,
            "deadline_at": placement_deadline,
        },
        tables.attempts: {"send_by": SEND_WITHIN},
        tables.leases: {"until": LONGEST_LEASE},
        tables.bill_readings: {"due_at": LONGEST_BILL_PAUSE},
        tables.webhook_lines: {
            "lease_until": LONGEST_LEASE,
            "next_try_at": LONGEST_DELIVERY_PAUSE,
            "spared_until": LONGEST_DELIVERY_PAUSE,
        },
        tables.deliveries: {"due_at": LONGEST_DELIVERY_PAUSE},
        tables.quotes: {"expires_at": VALID_FOR},
    }


def _limit(
    connection: Connection, table: Table, longest: Mapping[str, int], now: int, *, reset: bool
) -> int:
    """Set times beyond their limit to now if `reset`, else to the limit; return changed rows."""
    values = {
        name: case((table.c[name] > now + most, now if reset else now + most), else_=table.c[name])
        for name, most in longest.items()
    }
    too_far = [table.c[name] > now + most for name, most in longest.items()]
    return connection.execute(update(table).where(or_(*too_far)).values(**values)).rowcount


def _pull_back_memories(connection: Connection, now: int) -> int:
    table = tables.operations
    changed = 0
    for operation_id, text in connection.execute(
        select(table.c.id, table.c.memory).where(~table.c.done, table.c.memory != "{}")
    ).all():
        progress = load_progress(text)
        pulled_back = progress.pulled_back(now + TOLERATED, now)
        if pulled_back != progress:
            write_progress(connection, operation_id, pulled_back)
            changed += 1
    return changed

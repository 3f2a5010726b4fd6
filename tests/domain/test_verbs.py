# SPDX-License-Identifier: Apache-2.0
"""Which verbs an instance accepts, by its status and its running operation."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.instance import InstanceStatus, Observed
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.verbs import Verdict, judge
from novitai.testing import an_instance

S, K, V = InstanceStatus, OperationKind, Verdict
ASKED = (K.START, K.STOP, K.RESTART, K.DELETE)
BUSY_KINDS = tuple(kind for kind in K if kind is not K.FOLLOW and kind is not K.SYNC)

IDLE: dict[OperationKind, dict[InstanceStatus, Verdict]] = {
    K.START: {
        S.CREATING: V.NOT_NOW,
        S.STARTING: V.NOT_NOW,
        S.RUNNING: V.ALREADY,
        S.STOPPING: V.NOT_NOW,
        S.STOPPED: V.GO,
        S.MIGRATING: V.NOT_NOW,
        S.FAILED: V.GO,
        S.TERMINATING: V.NOT_NOW,
        S.TERMINATED: V.NOT_NOW,
        S.RELEASED: V.RELEASED,
    },
    K.STOP: {
        S.CREATING: V.NOT_NOW,
        S.STARTING: V.NOT_NOW,
        S.RUNNING: V.GO,
        S.STOPPING: V.NOT_NOW,
        S.STOPPED: V.ALREADY,
        S.MIGRATING: V.NOT_NOW,
        S.FAILED: V.NOT_NOW,
        S.TERMINATING: V.NOT_NOW,
        S.TERMINATED: V.NOT_NOW,
        S.RELEASED: V.RELEASED,
    },
    K.RESTART: {
        S.CREATING: V.NOT_NOW,
        S.STARTING: V.NOT_NOW,
        S.RUNNING: V.GO,
        S.STOPPING: V.NOT_NOW,
        S.STOPPED: V.NOT_NOW,
        S.MIGRATING: V.NOT_NOW,
        S.FAILED: V.NOT_NOW,
        S.TERMINATING: V.NOT_NOW,
        S.TERMINATED: V.NOT_NOW,
        S.RELEASED: V.RELEASED,
    },
    K.DELETE: {
        **dict.fromkeys(S, V.GO),
        S.TERMINATED: V.ALREADY,
        S.RELEASED: V.RELEASED,
    },
}
"""The verdicts for an instance that was bought and has no running operation."""


def an_operation(kind: OperationKind) -> Operation:
    """Return a running operation."""
    return Operation("op_1", kind, "inst_1", "ask", 0, 0)


@pytest.mark.parametrize("kind", ASKED)
def test_every_state_without_an_operation(kind: OperationKind) -> None:
    """The whole table; an operation that gives way to a user changes nothing."""
    for status in InstanceStatus:
        instance = an_instance(status)
        assert judge(kind, instance, None) is IDLE[kind][status], status
        assert judge(kind, instance, an_operation(K.FOLLOW)) is IDLE[kind][status], status


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("running", BUSY_KINDS)
def test_every_verb_over_every_operation(kind: OperationKind, running: OperationKind) -> None:
    """The same verb is under way; delete replaces any other; the rest is busy."""
    for status in set(InstanceStatus) - {S.TERMINATED, S.RELEASED}:
        verdict = judge(kind, an_instance(status), an_operation(running))
        if running is kind:
            assert verdict is V.UNDER_WAY
        else:
            assert verdict is (V.GO if kind is K.DELETE else V.BUSY)


@pytest.mark.parametrize("kind", [K.START, K.STOP, K.RESTART])
def test_what_is_not_there_cannot_be_operated(kind: OperationKind) -> None:
    """An instance that was never bought or is gone can only be deleted."""
    for status, verdict in IDLE[kind].items():
        if verdict is V.GO:
            unbought = an_instance(status, upstream_id=None)
            gone = an_instance(status, observed=Observed(gone=True))
            assert judge(kind, unbought, None) is V.NOT_NOW
            assert judge(kind, gone, None) is V.NOT_NOW
            assert judge(K.DELETE, unbought, None) is V.GO
            assert judge(K.DELETE, gone, None) is V.GO


def test_what_is_so_is_not_so_while_another_operation_runs() -> None:
    """A stopped instance that is being started is not already stopped."""
    assert judge(K.STOP, an_instance(S.STOPPED), an_operation(K.START)) is V.BUSY
    assert judge(K.START, an_instance(S.RUNNING), an_operation(K.RESTART)) is V.BUSY


@given(
    kind=st.sampled_from(ASKED),
    status=st.sampled_from(list(S)),
    running=st.sampled_from([None, *BUSY_KINDS, K.FOLLOW]),
    bought=st.booleans(),
    gone=st.booleans(),
)
def test_verdicts_are_sound(
    kind: OperationKind,
    status: InstanceStatus,
    running: OperationKind | None,
    bought: bool,
    gone: bool,
) -> None:
    """No verb begins twice, without an instance, or on an ended record."""
    instance = replace(
        an_instance(status), upstream_id="up" if bought else None, observed=Observed(gone=gone)
    )
    operation = an_operation(running) if running else None
    verdict = judge(kind, instance, operation)
    assert (verdict is V.RELEASED) is (status is S.RELEASED)
    if verdict is V.RELEASED:
        return
    if verdict is V.GO:
        assert status is not S.TERMINATED
        if kind is not K.DELETE:
            assert bought
            assert not gone
            assert operation is None or operation.kind.gives_way
    if verdict is V.UNDER_WAY:
        assert running is kind
    if verdict is V.BUSY:
        assert running not in {None, kind, K.FOLLOW}
    if kind is K.DELETE:
        assert verdict in {V.GO, V.UNDER_WAY, V.ALREADY}

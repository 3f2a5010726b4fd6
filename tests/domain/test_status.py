# SPDX-License-Identifier: Apache-2.0
"""The derived status: a pure function of the record, its operation and the observed state."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.event import EventType, of_status
from novitai.domain.instance import (
    TRANSITIONS,
    Instance,
    InstanceStatus,
    Observed,
    may_follow,
)
from novitai.domain.operation import OperationKind
from novitai.domain.status import Observation, derive, read_word
from novitai.testing import an_instance
from tests.domain.making import AT

S, K, O = InstanceStatus, OperationKind, Observation  # noqa: E741 - short names of three enums

WORDS: dict[str, tuple[Observation, InstanceStatus | None, InstanceStatus | None]] = {
    # word: its group, the status during the create, the status without an operation
    "pending": (O.WAITING, S.CREATING, S.STARTING),
    "toCreate": (O.WAITING, S.CREATING, S.STARTING),
    "creating": (O.WAITING, S.CREATING, S.STARTING),
    "pulling": (O.PULLING, S.STARTING, S.STARTING),
    "toStart": (O.STARTING, S.STARTING, S.STARTING),
    "starting": (O.STARTING, S.STARTING, S.STARTING),
    "toRestart": (O.STARTING, S.STARTING, S.STARTING),
    "restarting": (O.STARTING, S.STARTING, S.STARTING),
    "toReset": (O.STARTING, S.STARTING, S.STARTING),
    "resetting": (O.STARTING, S.STARTING, S.STARTING),
    "running": (O.RUNNING, S.STARTING, S.STARTING),
    "toStop": (O.STOPPING, S.STARTING, S.STOPPING),
    "stopping": (O.STOPPING, S.STARTING, S.STOPPING),
    "exited": (O.EXITED, S.STARTING, S.STOPPED),
    "migrating": (O.MIGRATING, S.STARTING, S.MIGRATING),
    "toRemove": (O.REMOVING, S.STARTING, S.TERMINATING),
    "removing": (O.REMOVING, S.STARTING, S.TERMINATING),
    "removed": (O.REMOVED, S.STARTING, S.TERMINATED),
    "freezing": (O.UNKNOWN, None, None),
    "": (O.UNKNOWN, None, None),
    "Running": (O.UNKNOWN, None, None),
    "brand-new-word": (O.UNKNOWN, None, None),
}


def seen(word: str | None, status: InstanceStatus = S.RUNNING, **more: object) -> Instance:
    """Return an instance as in the last listing."""
    gone = bool(more.pop("gone", False))
    return an_instance(status, observed=Observed(status=word, at=AT, gone=gone), **more)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_of_upstreams(word: str) -> None:
    """Every Novita status maps as in the contract; unknown ones change nothing."""
    meaning, creating, idle = WORDS[word]
    assert read_word(word) is meaning
    assert derive(seen(word, S.CREATING), K.CREATE) is (creating or S.CREATING)
    # `migrating` may change to any of the others; no other status may.
    before = S.STARTING if idle in {S.STOPPING, S.MIGRATING} else S.MIGRATING
    assert derive(seen(word, before), None) is (idle or before)


def test_nothing_observed_is_an_unknown_word() -> None:
    """Before the first listing the status does not change."""
    assert read_word(None) is O.UNKNOWN
    assert derive(seen(None, S.STARTING), None) is S.STARTING


def test_running_needs_to_be_ready() -> None:
    """Novita's `running` is shown as `starting` until the probes succeed."""
    assert derive(seen("running", S.STARTING), None) is S.STARTING
    assert derive(seen("running", S.STARTING, ready_at=AT), None) is S.RUNNING
    assert derive(seen("running", S.STARTING, ready_at=AT), K.CREATE) is S.STARTING


def test_not_bought_yet_is_creating() -> None:
    """Without an upstream ID the status is `creating`, regardless of observations."""
    assert derive(seen("running", S.CREATING, upstream_id=None), K.CREATE) is S.CREATING


@pytest.mark.parametrize(
    ("running", "status", "before"),
    [
        (K.DELETE, S.TERMINATING, S.RUNNING),
        (K.START, S.STARTING, S.STOPPED),
        (K.RESTART, S.STARTING, S.RUNNING),
        (K.STOP, S.STOPPING, S.RUNNING),
    ],
)
def test_an_operation_alone_moves_the_status(
    running: OperationKind, status: InstanceStatus, before: InstanceStatus
) -> None:
    """While an operation runs, observations do not change the status."""
    for word in WORDS:
        assert derive(seen(word, before, ready_at=AT), running) is status
        assert derive(seen(word, before, ready_at=AT, gone=True), running) is status


@pytest.mark.parametrize("running", [None, K.FOLLOW, K.REAP])
def test_what_failed_stays_failed(running: OperationKind | None) -> None:
    """Only a start or a deletion changes `failed`; observations do not."""
    for word in WORDS:
        failed = seen(word, S.FAILED, failed=True, ready_at=AT)
        assert derive(failed, running) is S.FAILED
        assert derive(failed, K.START) is S.STARTING
        assert derive(failed, K.DELETE) is S.TERMINATING


@pytest.mark.parametrize("running", [None, *K])
def test_terminated_is_final(running: OperationKind | None) -> None:
    """No operation and no observation changes `terminated`."""
    for word in WORDS:
        for status in set(S) - {S.RELEASED}:
            assert derive(seen(word, status, terminated_at=AT), running) is S.TERMINATED
        assert derive(seen(word, S.TERMINATED, ready_at=AT), running) is S.TERMINATED


def test_what_is_gone_is_terminated() -> None:
    """Proven absence terminates an instance in any status except `failed`."""
    for status in set(S) - {S.FAILED, S.RELEASED}:
        assert derive(seen("running", status, gone=True, ready_at=AT), None) is S.TERMINATED


FORBIDDEN = {
    (S.STOPPED, S.STOPPING),
    (S.STOPPED, S.FAILED),
    (S.STOPPING, S.STARTING),
    (S.STOPPING, S.MIGRATING),
    (S.MIGRATING, S.STOPPING),
    (S.CREATING, S.STOPPING),
    (S.CREATING, S.STOPPED),
    (S.CREATING, S.MIGRATING),
    *((S.FAILED, to) for to in (S.RUNNING, S.STOPPING, S.STOPPED, S.MIGRATING)),
    *((S.TERMINATING, to) for to in set(S) - {S.TERMINATING, S.TERMINATED, S.RELEASED}),
    *((S.TERMINATED, to) for to in set(S) - {S.TERMINATED}),
    *((S.RELEASED, to) for to in set(S) - {S.RELEASED}),
    *((before, S.CREATING) for before in set(S) - {S.CREATING}),
}


def test_every_transition() -> None:
    """Every pair of statuses is allowed or not as in the table; a status may always stay."""
    assert set(TRANSITIONS) == set(S)
    for before in S:
        for after in S:
            assert may_follow(before, after) is ((before, after) not in FORBIDDEN), (before, after)


def test_the_references_diagram_holds() -> None:
    """Every transition of Appendix A is allowed, except one that would hide a stop."""
    for before, after in (
        (S.CREATING, S.STARTING),
        (S.STARTING, S.RUNNING),
        (S.STARTING, S.FAILED),
        (S.CREATING, S.FAILED),
        (S.RUNNING, S.STOPPING),
        (S.STOPPING, S.STOPPED),
        (S.STOPPING, S.FAILED),
        (S.STOPPED, S.STARTING),
    ):
        assert may_follow(before, after)


def test_every_status_has_its_event() -> None:
    """`creating` has the event `created`; every other status has its own name."""
    assert of_status(S.CREATING) is EventType.CREATED
    for status in set(S) - {S.CREATING}:
        assert of_status(status).value == f"instance.{status.value}"


observations = st.builds(
    Observed,
    status=st.one_of(st.none(), st.sampled_from(list(WORDS)), st.text(max_size=10)),
    at=st.just(AT),
    gone=st.booleans(),
)
anything = st.builds(
    lambda status, observed, bought, failed, ready, ended: an_instance(
        status,
        observed=observed,
        upstream_id="up" if bought else None,
        failed=failed,
        ready_at=AT if ready else None,
        terminated_at=AT if ended else None,
    ),
    st.sampled_from(list(S)),
    observations,
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@pytest.mark.parametrize("running", [None, *K])
def test_released_is_final(running: OperationKind | None) -> None:
    """No operation and no observation changes `released`; no ended status becomes released."""
    for word in WORDS:
        for status in set(S) - {S.TERMINATED}:
            assert derive(seen(word, status, released_at=AT), running) is S.RELEASED


@given(instance=anything, running=st.sampled_from([None, *K]))
def test_deriving_is_sound(instance: Instance, running: OperationKind | None) -> None:
    """Derivation follows the transitions, is idempotent, and ends with `terminated_at`."""
    status = derive(instance, running)
    assert may_follow(instance.status, status)
    assert derive(replace(instance, status=status), running) is status
    if status is S.CREATING:
        assert instance.status is S.CREATING
    if status is S.RUNNING and instance.status is not S.RUNNING:
        assert instance.ready_at is not None
        assert instance.observed.status == "running"
    if instance.status is S.TERMINATED:
        assert status is S.TERMINATED

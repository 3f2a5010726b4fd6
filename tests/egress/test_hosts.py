# SPDX-License-Identifier: Apache-2.0
"""Limits on concurrent messages per host and per receiver."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novitai.egress.hosts import Hosts


def proven(*receivers: str, places: int = 3, waiting: int = 1000) -> Hosts:
    """Make limits that know these receivers as working."""
    hosts = Hosts(places=places, trial=2, waiting=waiting)
    for receiver in receivers:
        hosts.enter("a", receiver, "0")
        hosts.leave("a", receiver, works=True)
    return hosts


def test_a_host_takes_no_more_than_its_places() -> None:
    """A line that finds no free place is queued, and returned when a place is released."""
    hosts = proven("r", places=2)
    assert hosts.enter("a", "r", "1")
    assert hosts.enter("a", "r", "2")
    assert not hosts.enter("a", "r", "3")
    assert hosts.full == {"a"}
    assert hosts.enter("b", "q", "4")
    assert hosts.leave("a", "r", works=True) == ["3"]
    assert hosts.leave("a", "r", works=True) == []
    assert hosts.full == frozenset()


def test_a_receiver_begins_with_few_places() -> None:
    """A new receiver has few places; after it has accepted a message it may have all."""
    hosts = Hosts(places=4, trial=2)
    assert [hosts.enter("a", "r", line) for line in "12345"] == [True, True, False, False, False]
    assert hosts.busy == {"r"}
    assert hosts.full == frozenset()
    assert hosts.enter("a", "q", "6")
    assert hosts.leave("a", "r", works=True) == ["3", "4"]


def test_a_failing_receiver_has_one_place() -> None:
    """A failing receiver has one place until it works; other receivers of its host keep theirs."""
    hosts = proven("r", "q")
    for line in "123":
        assert hosts.enter("a", "r", line)
    assert not hosts.enter("a", "r", "4")
    assert hosts.leave("a", "r", works=False) == []
    assert hosts.leave("a", "r", works=False) == []
    assert hosts.enter("a", "q", "5")
    assert hosts.leave("a", "r", works=False) == ["4"]
    assert hosts.enter("a", "r", "4")
    assert not hosts.enter("a", "r", "6")
    assert hosts.busy == {"r"}
    assert hosts.leave("a", "r", works=True) == ["6"]


def test_receivers_of_a_host_take_turns() -> None:
    """Forty lines of a hanging receiver do not go before the one line of another."""
    hosts = proven("q", places=1)
    hosts.enter("a", "r", "0")
    for number in range(1, 40):
        hosts.enter("a", "r", str(number))
    hosts.enter("a", "q", "healthy")
    assert hosts.leave("a", "r", works=False) == ["1"]
    hosts.enter("a", "r", "1")
    assert hosts.leave("a", "r", works=False) == ["healthy"]


def test_who_is_called_and_never_comes_is_missed_by_nobody() -> None:
    """A returned line reserves no place: the place stays free for other lines."""
    hosts = proven("r", places=1)
    hosts.enter("a", "r", "1")
    hosts.enter("a", "r", "2")
    assert hosts.leave("a", "r", works=None) == ["2"]
    assert hosts.enter("a", "r", "3")


def test_memory_is_bounded() -> None:
    """The queue of a receiver is limited, queues a line only once, and is removed when empty."""
    hosts = proven("r", places=1, waiting=2)
    hosts.enter("a", "r", "1")
    for line in ("2", "2", "3", "4"):
        hosts.enter("a", "r", line)
    called = hosts.leave("a", "r", works=None)
    while called:
        assert hosts.enter("a", "r", called[-1])
        called += (more := hosts.leave("a", "r", works=None))
        if not more:
            break
    assert called == ["2", "3"]
    assert not hosts._of_host
    assert not hosts._of_receiver
    assert not hosts._waiting


@given(
    moves=st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.sampled_from("rq"),
            st.sampled_from([None, True, False]),
            st.booleans(),
        ),
        max_size=200,
    )
)
def test_nobody_who_waits_is_forgotten(moves: list[tuple[str, str, bool | None, bool]]) -> None:
    """In any order of calls, lines are queued for a host only while it has running messages.

    So a later `leave` returns them. The test assumes that every returned line is tried.
    """
    hosts = Hosts(places=3, trial=2)
    at_work: list[tuple[str, str]] = []
    receivers: dict[str, str] = {}
    for number, (host, receiver, works, comes) in enumerate(moves):
        whose = f"{host}{receiver}"
        if comes:
            receivers[str(number)] = whose
            if hosts.enter(host, whose, str(number)):
                at_work.append((host, whose))
        elif (host, whose) in at_work:
            at_work.remove((host, whose))
            for line in hosts.leave(host, whose, works=works):
                assert hosts.enter(host, receivers[line], line)
                at_work.append((host, receivers[line]))
        for name in "ab":
            assert sum(one == name for one, _ in at_work) <= 3
            if not any(one == name for one, _ in at_work):
                assert not hosts._waiting.get(name)

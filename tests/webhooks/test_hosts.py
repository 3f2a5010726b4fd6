# SPDX-License-Identifier: Apache-2.0
"""What one host may take of the sending."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from novitai.webhooks.hosts import Hosts


def test_a_host_takes_no_more_than_its_places() -> None:
    """Who comes in vain is noted, and has the place of whoever leaves next."""
    hosts = Hosts(places=2)
    assert hosts.enter("a", "1")
    assert hosts.enter("a", "2")
    assert not hosts.enter("a", "3")
    assert hosts.full == {"a"}
    assert hosts.enter("b", "4")
    assert hosts.leave("a", works=True) == "3"
    assert hosts.leave("a", works=True) is None
    assert hosts.full == frozenset()


def test_a_failing_host_has_one_place() -> None:
    """Until it works again: a dead one holds up nobody else for longer than one round."""
    hosts = Hosts(places=3)
    for line in "123":
        assert hosts.enter("a", line)
    assert not hosts.enter("a", "4")
    assert hosts.leave("a", works=False) is None
    assert hosts.leave("a", works=False) is None
    assert hosts.leave("a", works=False) == "4"
    assert not hosts.enter("a", "5")
    assert hosts.leave("a", works=True) == "5"
    assert hosts.enter("a", "6")


def test_memory_is_bounded() -> None:
    """So many wait for one host and no more; a line waits once; what is over is forgotten."""
    hosts = Hosts(places=1, waiting=2)
    hosts.enter("a", "1")
    for line in ("2", "2", "3", "4"):
        hosts.enter("a", line)
    left = [hosts.leave("a", works=None) for _ in range(3)]
    assert left == ["2", "3", None]
    assert not hosts._taken
    assert not hosts._waiting


@given(
    moves=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([None, True, False]), st.booleans()),
        max_size=200,
    )
)
def test_nobody_who_waits_is_forgotten(
    moves: list[tuple[str, bool | None, bool]],
) -> None:
    """Whatever the order: while somebody waits, somebody is at work who will pass the place on."""
    hosts = Hosts(places=3)
    at_work = {"a": 0, "b": 0}
    for number, (host, works, comes) in enumerate(moves):
        if comes:
            at_work[host] += hosts.enter(host, str(number))
        elif at_work[host]:
            at_work[host] -= hosts.leave(host, works=works) is None
        for name, count in at_work.items():
            assert count <= 3
            assert bool(count) or not hosts._waiting.get(name)

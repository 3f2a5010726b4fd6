# SPDX-License-Identifier: Apache-2.0
"""Tests of proxies and HTTPS."""

from __future__ import annotations

import ipaddress

import pytest

from novitai.api.http.application import Rules
from novitai.api.http.proxies import Peer, Proxies, neighbourhood
from tests.api.application import ApiFactory

TRUSTED = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1/128"))


def peer(client: str | None, headers: dict[str, str], *, scheme: str = "http") -> Peer:
    """Find the peer of a request."""
    sent = [(name.lower().encode(), text.encode()) for name, text in headers.items()]
    scope = {"client": (client, 1) if client else None, "scheme": scheme, "headers": sent}
    return Proxies(TRUSTED).peer(scope)


@pytest.mark.parametrize(
    ("client", "headers", "found"),
    [
        ("8.8.8.8", {}, Peer("8.8.8.8", False)),
        ("8.8.8.8", {"X-Forwarded-For": "1.1.1.1", "X-Forwarded-Proto": "https"}, None),
        ("10.0.0.1", {"X-Forwarded-For": "1.1.1.1"}, Peer("1.1.1.1", False)),
        ("10.0.0.1", {"X-Forwarded-Proto": "https"}, Peer("10.0.0.1", True)),
        ("10.0.0.1", {"X-Forwarded-For": "9.9.9.9, 1.1.1.1, 10.0.0.2"}, Peer("1.1.1.1", False)),
        ("10.0.0.1", {"X-Forwarded-For": "1.1.1.1, nonsense"}, Peer("10.0.0.1", False)),
        ("10.0.0.1", {"X-Forwarded-For": "[2606::1]:443"}, Peer("2606::1", False)),
        ("10.0.0.1", {"X-Forwarded-For": "1.1.1.1:5000"}, Peer("1.1.1.1", False)),
        ("10.0.0.1", {"X-Forwarded-Proto": "https, http"}, Peer("10.0.0.1", False)),
        ("::1", {"X-Forwarded-For": "1.1.1.1"}, Peer("1.1.1.1", False)),
        ("::ffff:10.0.0.1", {"X-Forwarded-For": "1.1.1.1"}, Peer("1.1.1.1", False)),
        (None, {"X-Forwarded-For": "1.1.1.1"}, Peer("local", False)),
    ],
)
def test_only_a_trusted_proxy_is_believed(
    client: str | None, headers: dict[str, str], found: Peer | None
) -> None:
    """The entry of the nearest trusted proxy counts; entries that the client forged do not."""
    assert peer(client, headers) == (found or Peer(str(client), False))


@pytest.mark.parametrize(
    ("address", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("local", True), ("10.0.0.1", False)],
)
def test_loopback_is_known(address: str, loopback: bool) -> None:
    """Every form of a loopback address is recognized, and no other address."""
    assert Peer(address, False).loopback is loopback


PRODUCTION = Rules(insist_on_https=True, trusted_proxies=TRUSTED)


@pytest.mark.parametrize(
    ("client", "headers", "status"),
    [
        ("8.8.8.8", {}, 403),
        ("8.8.8.8", {"X-Forwarded-Proto": "https"}, 403),
        ("127.0.0.1", {}, 200),
        ("10.0.0.1", {}, 403),
        ("10.0.0.1", {"X-Forwarded-Proto": "https"}, 200),
        ("10.0.0.1", {"X-Forwarded-Proto": "http", "X-Forwarded-For": "8.8.8.8"}, 403),
        ("::1", {"X-Forwarded-Proto": "http", "X-Forwarded-For": "8.8.8.8"}, 403),
    ],
)
async def test_production_insists_on_https(
    factory: ApiFactory, client: str, headers: dict[str, str], status: int
) -> None:
    """Plain HTTP from another machine is refused, unless a trusted proxy received HTTPS."""
    api = await factory.make(rules=PRODUCTION, client=(client, 1))
    answer = await api.call("GET", "/v1/api/instances", headers=headers)
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "HTTPS_REQUIRED"
        assert answer.json()["error"]["requestId"] == answer.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/health", "/v1/health", "/health/live", "/v1/health/ready"])
async def test_health_is_exempt(factory: ApiFactory, path: str) -> None:
    """Health checks may use plain HTTP, as probes inside a cluster do."""
    api = await factory.make(rules=PRODUCTION, client=("8.8.8.8", 1))
    assert (await api.call("GET", path, scope=None)).status_code == 200


async def test_development_does_not_insist(factory: ApiFactory) -> None:
    """Without the setting, plain HTTP is accepted."""
    api = await factory.make(client=("8.8.8.8", 1))
    assert (await api.call("GET", "/api/instances")).status_code == 200


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "::ffff:203.0.113.7"),
        ("local", "local"),
    ],
)
def test_a_customer_s_whole_network_counts_as_one_caller(address: str, expected: str) -> None:
    """All addresses of one IPv6 /64 share one bucket."""
    assert neighbourhood(address) == expected


def test_callers_behind_one_proxy_are_told_apart() -> None:
    """Each caller keeps its own address and scheme, however long the header."""
    proxies = Proxies(TRUSTED)
    long = b"9.9.9.9, " * 100
    for _ in range(2):
        for hop, protocol in ((b"1.1.1.1", b"https"), (b"1.1.1.2", b"http"), (b"1.1.1.1", b"http")):
            for before in (b"", long):
                sent = [(b"x-forwarded-for", before + hop), (b"x-forwarded-proto", protocol)]
                scope = {"client": ("10.0.0.1", 1), "scheme": "http", "headers": sent}
                assert proxies.peer(scope) == Peer(hop.decode(), protocol == b"https")

# SPDX-License-Identifier: Apache-2.0
"""Where messages must not be sent: a corpus of addresses and their notations, all refused."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from novitai.clock import SystemClock
from novitai.domain.addresses import Address
from novitai.domain.webhook_url import webhook_url
from novitai.egress.guard import AddressGuard, AddressRefused
from novitai.egress.resolving import SystemResolver, system_resolver
from novitai.egress.sending import Message, Sender
from novitai.egress.signing import secret_of
from tests.egress.receivers import answer, listening

SECRET = secret_of("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH")

# Hosts that are refused without resolving a name.
LITERALS = (
    # loopback, in all notations
    "127.0.0.1", "127.0.0.2", "127.255.255.255", "127.1", "127.0.1", "2130706433", "017700000001",
    "0x7f000001", "0x7F000001", "0x7f.1", "0x7f.0x0.0x0.0x1", "0177.0.0.1", "0177.0.0.01",
    "127.0.0.1.", "0x7f.0.1", "00000177.1", "①②⑦.⓪.⓪.①", "１２７.0.0.1", "127。0。0。1",
    "[::1]", "[0:0:0:0:0:0:0:1]", "[0000::0001]",
    # unspecified and this network
    "0.0.0.0", "0", "0x0", "0.1.2.3", "[::]",  # noqa: S104 - to be refused
    # private
    "10.0.0.1", "10.1", "012.1", "0xa.1", "167772161", "172.16.0.1", "172.31.255.255",
    "192.168.0.1", "192.168.1", "3232235777", "0xc0a80101", "0300.0250.1.1",
    # carrier-grade NAT
    "100.64.0.1", "100.127.255.254", "1681915905",
    # link-local, with the metadata services of clouds
    "169.254.169.254", "2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518",
    "169.254.170.2", "[fe80::1]", "[fe80::1%25eth0]", "[fe80::a9fe:a9fe]", "[febf::1]",
    # a service of a cloud at an address that looks public
    "168.63.129.16", "0xa83f8110", "168.4161808",
    # unique local, site-local, and the metadata addresses among them
    "[fc00::1]", "[fd00:ec2::254]", "[fd12:3456:789a:1::1]", "[fec0::1]", "[fd20:ce::254]",
    # IPv4 inside IPv6: mapped, compatible, translated
    "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]",
    "[::ffff:8.8.8.8]", "[::127.0.0.1]", "[::ffff:0:127.0.0.1]",
    # NAT64, 6to4, Teredo
    "[64:ff9b::7f00:1]", "[64:ff9b::8.8.8.8]", "[64:ff9b:1::a00:1]", "[2002:7f00:1::]",
    "[2002:a9fe:a9fe::1]", "[2002:c0a8:101::]", "[2001:0:7f00:1::]", "[2001::1]",
    # multicast, broadcast, reserved, documentation, benchmarks, protocol assignments
    "224.0.0.1", "239.255.255.250", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.51.100.1",
    "203.0.113.1", "198.18.0.1", "192.0.0.192", "192.88.99.1", "[ff02::1]", "[2001:db8::1]",
    "[3fff::1]", "[100::1]", "[5f00::1]",
    # names that are local by convention
    "localhost", "LOCALHOST", "localhost.", "a.localhost", "printer.local", "db.internal",
    "metadata.google.internal", "ｌocalhost", "loc\u00adalhost",
    # names that public DNS cannot resolve, or that mean another host on each network
    "metadata", "metadata.", "instance-data", "intranet", "kubernetes", "novitai-api", "HOST",
    "api.svc", "api.ns.svc", "api.ns.svc.cluster.local", "kubernetes.default", "x.localdomain",
    "printer.lan", "nas.home", "nas.home.arpa", "1.0.0.127.in-addr.arpa", "dc.corp", "mx.mail",
    "wiki.intranet", "db.private", "pc.workgroup", "x.localnet", "router.belkin", "a.test",
    "a.invalid", "facebookcorewwwi.onion", "x.alt", "redis.service.consul", "host.docker", "x.i2p",
    "A.SVC.", "a.ｌan", "host.docker.internal",
)  # fmt: skip

PUBLIC = (
    "8.8.8.8", "1.1.1.1", "9.9.9.9", "93.184.215.14", "100.63.255.255", "100.128.0.1",
    "168.63.129.15", "168.63.129.17",
    "172.15.255.255", "172.32.0.1", "192.167.255.255", "192.169.0.1", "169.253.255.255",
    "169.255.0.1", "126.255.255.255", "128.0.0.1", "11.0.0.1", "223.255.255.255", "134744072",
    "0x08080808", "010.8.8.8", "[2606:4700:4700::1111]", "[2001:4860:4860::8888]",
    "[2a00:1450:4001:81b::200e]", "[2620:fe::fe]",
)  # fmt: skip

# Addresses of names that are refused only after resolving.
RESOLVED = (
    ["127.0.0.1"],
    ["10.0.0.1"],
    ["169.254.169.254"],
    ["168.63.129.16"],
    ["100.64.0.1"],
    ["0.0.0.0"],  # noqa: S104 - to be refused
    ["::1"],
    ["::ffff:10.0.0.1"],
    ["64:ff9b::a00:1"],
    ["2002:a00:1::"],
    ["2001:0:a00:1::"],
    ["fd00::1"],
    ["fe80::1%eth0"],
    ["224.0.0.1"],
    ["8.8.8.8", "10.0.0.1"],
    ["2606:4700:4700::1111", "fe80::1"],
    ["8.8.8.8", "1.1.1.1", "192.168.0.1"],
)


def resolving(*answers: Sequence[str]) -> tuple[AddressGuard, list[str]]:
    """Make a guard whose names resolve to these answers, one after another."""
    asked: list[str] = []

    async def resolve(name: str, _port: int) -> Sequence[Address]:
        asked.append(name)
        return [ip_address(text) for text in answers[len(asked) - 1]]

    return AddressGuard(allow_private=False, resolve=resolve), asked


def test_the_corpus_is_large_enough() -> None:
    """The corpus has at least 80 different entries."""
    assert len(LITERALS) + len(RESOLVED) >= 80
    assert len(set(LITERALS)) == len(LITERALS)


@pytest.mark.parametrize("host", LITERALS)
async def test_private_places_are_refused_at_registration_and_at_delivery(host: str) -> None:
    """In every spelling, with and without a port, user or TLS; and no name is resolved.

    The refusal names the setting that lifts it.
    """
    guard, asked = resolving()
    for url in (f"http://{host}/", f"https://{host}:8443/x", f"http://a:b@{host}/"):
        with pytest.raises(ValueError, match="NOVITAI_WEBHOOK_ALLOW_PRIVATE=true"):
            webhook_url(url, allow_private=False)
        with pytest.raises(AddressRefused, match="NOVITAI_WEBHOOK_ALLOW_PRIVATE=true"):
            await guard.target(url)
    assert not asked


@pytest.mark.parametrize("host", PUBLIC)
async def test_public_places_are_not_refused(host: str) -> None:
    """Public addresses are allowed."""
    guard, _ = resolving()
    url = f"https://{host}/hook"
    assert webhook_url(url, allow_private=False) == url
    assert len((await guard.target(url)).addresses) == 1


@pytest.mark.parametrize("addresses", RESOLVED, ids="+".join)
async def test_a_name_with_one_address_that_is_not_public_is_refused(
    addresses: Sequence[str],
) -> None:
    """Every address of a name is checked, not only the first."""
    guard, _ = resolving(addresses)
    with pytest.raises(
        AddressRefused, match=r"not public.*NOVITAI_WEBHOOK_ALLOW_PRIVATE"
    ) as caught:
        await guard.target("https://hooks.example.com/")
    assert not any(address in str(caught.value) for address in addresses)


async def test_a_name_that_changes_its_mind_gains_nothing() -> None:
    """After DNS rebinding, the checked address is used, and the next message is refused."""
    guard, asked = resolving(["93.184.215.14"], ["127.0.0.1"])
    target = await guard.target("http://rebind.example.com/")
    assert [str(address) for address in target.addresses] == ["93.184.215.14"]
    assert len(asked) == 1
    with pytest.raises(AddressRefused):
        await guard.target("http://rebind.example.com/")


async def test_a_refused_message_never_leaves() -> None:
    """No connection is made for a refused message."""
    async with listening(answer(200)) as receiver:
        for url in (receiver.url, f"http://rebind.example.com:{receiver.port}/"):
            guard, _ = resolving(["127.0.0.1"])
            sender = Sender(guard, SystemClock())
            result = await sender.send(Message("msg_1", url, b"{}", [SECRET]))
            assert (result.status, result.delivered) == (None, False)
            assert result.error is not None
            assert result.error.startswith("Refused: ")
    assert not receiver.got


@pytest.mark.parametrize(
    "url",
    ["ftp://8.8.8.8/", "file:///etc/passwd", "gopher://8.8.8.8:70/", "http://", "http:///x",
     "http://8.8.8.8:0/", "http://8.8.8.8:99999/", "http://8.8.8.8\\@127.0.0.1/",
     "http://127.0.0.1#@8.8.8.8/", "http://8.8.8.8 /", "http://[::1", "http://1.2.3.4.5/",
     "http://256.1.1.1/", "javascript:alert(1)", "//8.8.8.8/"],
)  # fmt: skip
async def test_what_is_no_url_or_means_two_hosts_is_refused(url: str) -> None:
    """Malformed URLs, and those that parsers may read differently, are refused."""
    guard, _ = resolving()
    with pytest.raises(AddressRefused):
        await guard.target(url)


async def test_this_machine_may_be_allowed() -> None:
    """With `allow_private`, loopback and private addresses are allowed."""
    guard = AddressGuard(allow_private=True)
    target = await guard.target("http://localhost:80/")
    assert target.host == "localhost"
    assert target.addresses


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "hooks.example",
        "a.b.co.uk",
        "localhost.example.com",
        "svc.example.com",
        "test.com",
        "local.net",
        "xn--bcher-kva.de",
        "lan.party.games",
        "metadata.example.org",
    ],
)
def test_a_name_that_may_be_public_is_taken(name: str) -> None:
    """Only the last labels of a name decide whether it is local."""
    assert webhook_url(f"https://{name}/", allow_private=False)


async def test_look_ups_that_hang_hold_up_no_other_name() -> None:
    """Callers of one name share a look-up; look-ups are limited per domain and in total."""
    release = threading.Event()
    asked: list[str] = []

    def look_up(name: str) -> Sequence[Address]:
        asked.append(name)
        if "slow" in name:
            release.wait(20)
        return [ip_address("93.184.215.14")]

    resolve = SystemResolver(look_up, most=4, most_of_domain=2)
    waiting = [
        asyncio.create_task(resolve(name, 80))
        for name in ("1.slow.com", "1.slow.com", "2.slow.com", "3.slow.com")
    ]
    await asyncio.wait(waiting, timeout=0.1)
    assert sorted(asked) == ["1.slow.com", "2.slow.com"]
    assert isinstance(waiting[3].exception(), OSError)
    assert await resolve("quick.com", 80) == [ip_address("93.184.215.14")]
    waiting[0].cancel()
    release.set()
    assert await waiting[1] == [ip_address("93.184.215.14")]
    assert await resolve("4.slow.com", 80) == [ip_address("93.184.215.14")]


async def test_a_name_that_does_not_resolve() -> None:
    """Failed resolution is a network error, not a refusal, and has the deadline of the attempt."""
    with pytest.raises(OSError, match=r"."):
        await system_resolver("no-such-name.invalid", 80)

    async def never(_name: str, _port: int) -> Sequence[Address]:
        await SystemClock().sleep(60)
        raise AssertionError

    sender = Sender(AddressGuard(allow_private=True, resolve=never), SystemClock(), deadline=0.2)
    began = time.monotonic()
    result = await sender.send(Message("msg_1", "http://slow.example.com/", b"{}", [SECRET]))
    assert result.error == "No answer within 0.2 s"
    assert time.monotonic() - began < 30

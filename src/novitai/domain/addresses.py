# SPDX-License-Identifier: Apache-2.0
"""Decide to which hosts and addresses requests may be sent. Pure: no name is resolved here."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

MAX_HOST: Final = 253
PORTS: Final = {"http": 80, "https": 443}
"""The default port of each supported URL scheme."""

# The special-purpose addresses (RFC 6890 and its updates). Python's `is_global` is not used: it is
# true for multicast, NAT64, 6to4 and others, and changes between versions.
_IPV4_SPECIAL: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's virtual address on every host: WireServer, DNS and others
        "169.254.0.0/16",  # link-local, including the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
# IANA allocates global unicast addresses from 2000::/3 only. This excludes loopback, unique local,
# link-local, multicast, IPv4-mapped and IPv4-compatible addresses, and NAT64.
_IPV6_GIVEN_OUT: Final = ipaddress.IPv6Network("2000::/3")
_IPV6_SPECIAL: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # IETF protocol assignments: Teredo, benchmarking, ORCHID
        "2001:db8::/32",
        "2002::/16",  # 6to4
        "2620:4f:8000::/48",
        "3fff::/20",
    )
)
# Addresses that the owner of a private network assigns. Metadata services (link-local), multicast
# and reserved addresses are not included.
_PRIVATE_USE: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarking; also used by proxies that answer DNS queries themselves
        "::1/128",
        "fc00::/7",
    )
)
# The instance metadata service of AWS has an address in the unique local range.
_METADATA: Final = frozenset({ipaddress.ip_address("fd00:ec2::254")})
# Top-level labels that public DNS does not resolve: reserved for other uses, or not delegated.
_PRIVATE_SUFFIXES: Final = frozenset(
    {
        # RFC 6761, 6762, 7686, 8375, 9476; ICANN's reservation of `internal`. `example` stays
        # allowed: documentation uses it, and it does not resolve.
        "localhost", "local", "invalid", "test", "onion", "alt", "arpa", "internal",
        # RFC 6762, appendix G; names that ICANN does not delegate because local networks use them.
        "localdomain", "localnet", "lan", "home", "corp", "mail", "intranet", "private",
        "workgroup", "belkin",
        # Kubernetes (`a.svc`, `kubernetes.default`), Docker, Consul, I2P.
        "svc", "default", "docker", "consul", "i2p",
    }
)  # fmt: skip
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER: Final = re.compile(r"0x[0-9a-f]*|[0-9]+")


def is_public(address: Address) -> bool:
    """Return whether an address is on the public internet and does not embed another address."""
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _IPV4_SPECIAL)
    if address.scope_id is not None or address not in _IPV6_GIVEN_OUT:
        return False
    return not any(address in network for network in _IPV6_SPECIAL)


def is_private_use(address: Address) -> bool:
    """Return whether an address belongs to a private network or the loopback."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None or address in _METADATA:
            return False
        if address.ipv4_mapped is not None:
            return is_private_use(address.ipv4_mapped)
    return any(address.version == one.version and address in one for one in _PRIVATE_USE)


class Reach(Enum):
    """The addresses allowed for a request to a destination that was chosen outside novitai."""

    PUBLIC = "public"
    """The public internet only."""
    PRIVATE = "private"
    """Also private networks and the loopback, but no metadata services and no multicast."""
    ANYWHERE = "anywhere"
    """Any address, because the operator configured the destination."""

    def covers(self, address: Address) -> bool:
        """Return whether an address is within reach."""
        if self is Reach.ANYWHERE or is_public(address):
            return True
        return self is Reach.PRIVATE and is_private_use(address)

    def may_cover(self, host: Host) -> bool:
        """Return whether a host may be within reach, judged without resolving its name."""
        if host.address is not None:
            return self.covers(host.address)
        return self is not Reach.PUBLIC or not host.private


@dataclass(frozen=True, slots=True)
class Host:
    """The host of a URL, normalized: lower case, ASCII, without a trailing dot."""

    name: str
    address: Address | None = None

    @property
    def private(self) -> bool:
        """Whether it is not on the public internet, judged without resolving its name."""
        if self.address is not None:
            return not is_public(self.address)
        # Top-level domains have no addresses, so a single label is a name of a local network.
        _, dot, last = self.name.rpartition(".")
        return not dot or last in _PRIVATE_SUFFIXES


def read_host(text: str) -> Host:
    """Parse the host of a URL in any spelling: IDNA, `0x7f.1`, `2130706433`, `[::1]`, `a.b.`.

    Raises:
        ValueError: it is not a valid host.
    """
    if text.startswith("[") and text.endswith("]"):
        address = ipaddress.IPv6Address(text[1:-1].replace("%25", "%", 1))
        # A zone ID may have any length.
        return Host(_bounded(f"[{address}]"), address)
    name = _bounded(_ascii(text))
    labels = name.split(".")
    if not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError("not a host name")
    if _NUMBER.fullmatch(labels[-1]):
        address4 = _ipv4(labels)
        return Host(str(address4), address4)
    return Host(name)


def read_place(url: str) -> tuple[Host, int]:
    """Parse the host and the port of an HTTP URL.

    Raises:
        ValueError: it is not an HTTP URL, or its host or port is invalid.
    """
    parts = urlsplit(url)
    if parts.scheme not in PORTS:
        raise ValueError("not an HTTP URL")
    host = parts.hostname or ""
    return read_host(f"[{host}]" if ":" in host else host), parts.port or PORTS[parts.scheme]


def _bounded(name: str) -> str:
    if not 0 < len(name) <= MAX_HOST:
        raise ValueError(f"a host name has between 1 and {MAX_HOST} characters")
    return name


def _ascii(text: str) -> str:
    # Like resolvers and HTTP clients, the codec folds full-width digits and dots, circled letters
    # and soft hyphens. `_LABEL` rejects percent signs.
    try:
        name = text.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise ValueError("not a host name") from None
    return name.removesuffix(".")


def _ipv4(labels: list[str]) -> ipaddress.IPv4Address:
    """Parse an address as `inet_aton` does: 1 to 4 numbers, decimal, octal or hexadecimal."""
    if len(labels) > 4:
        raise ValueError("an IPv4 address has at most four parts")
    *leading, last = (_number(label) for label in labels)
    room = 8 * (4 - len(leading))
    if any(part > 255 for part in leading) or last >= 1 << room:
        raise ValueError("a part of the IPv4 address is too large")
    value = last
    for position, part in enumerate(leading):
        value |= part << (24 - 8 * position)
    return ipaddress.IPv4Address(value)


def _number(label: str) -> int:
    if label.startswith("0x"):
        return int(label[2:] or "0", 16)
    if len(label) > 1 and label.startswith("0"):
        return int(label, 8)
    return int(label, 10)

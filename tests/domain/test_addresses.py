# SPDX-License-Identifier: Apache-2.0
"""The address rules."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.domain.addresses import is_public, read_host


@given(address=st.ip_addresses())
def test_public_is_never_wider_than_what_python_calls_global(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """An address that is public by our rules is global by Python's rules."""
    if is_public(address):
        assert address.is_global
        assert not address.is_multicast


@given(address=st.ip_addresses(v=4))
def test_an_embedded_address_is_never_public(address: ipaddress.IPv4Address) -> None:
    """IPv4-mapped, compatible, NAT64, 6to4 and Teredo addresses are not public."""
    number = int(address)
    for prefix, shift in (
        ("::ffff:0:0", 0),
        ("::", 0),
        ("64:ff9b::", 0),
        ("64:ff9b:1::", 0),
        ("2002::", 80),
        ("2001::", 0),
    ):
        embedded = ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | number << shift)
        assert not is_public(embedded)


@given(address=st.ip_addresses(v=4))
def test_every_spelling_of_an_address_is_read_as_that_address(
    address: ipaddress.IPv4Address,
) -> None:
    """Decimal, octal, hexadecimal and shortened spellings give the same address."""
    number = int(address)
    a, b, c, d = address.packed
    spellings = [
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{c << 8 | d}",
        f"0x{a:x}.0{b:o}.{c}.{d}.",
    ]
    assert {read_host(spelling).address for spelling in spellings} == {address}


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "100.128.0.1"])
def test_public_addresses_are_public(address: str) -> None:
    """Addresses of the public internet are accepted."""
    assert is_public(ipaddress.ip_address(address))


def test_a_host_is_brought_into_one_spelling() -> None:
    """Case, a trailing dot and brackets make no difference."""
    assert read_host("EXAMPLE.com.").name == "example.com"
    assert read_host("bücher.example").name == "xn--bcher-kva.example"
    assert read_host("[0:0:0:0:0:0:0:1]").name == "[::1]"

# SPDX-License-Identifier: Apache-2.0
"""Responses that a strict decoder refuses because of one value."""

from __future__ import annotations

import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.upstream import payloads, reading
from novitai.upstream.answers import payload
from novitai.upstream.decoding import decode
from novitai.upstream.models import UpstreamInstance
from novitai.upstream.paging import Page
from novitai.upstream.transport import Answer
from novitai.upstream.wire import Json
from tests.upstream.strategies import ANYTHING, is_plain

ORDINARY = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | ORDINARY | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
# The bytes between two quotes: any bytes, and a backslash before any byte.
INSIDE_QUOTES = st.lists(
    st.binary(max_size=8).map(lambda chunk: chunk.replace(b'"', b"").replace(b"\\", b""))
    | st.binary(min_size=1, max_size=1).map(lambda letter: b"\\" + letter)
    | st.sampled_from([b"\\ud83d", b"\\ude00", b"\\u12", b"\\x41", b"\xf0\x9f", b"\x1b[31m"])
).map(b"".join)


def listing(value: bytes, field: str = "name") -> Page[UpstreamInstance]:
    """Read a page of three rows; the middle row has this value in a field."""
    rows = b'{"id":"%s","name":"neighbour","status":"running"}'
    middle = b'{"id":"b","status":"running","%s":%s}' % (field.encode(), value)
    body = b'{"instances":[%s,%s,%s],"total":3}' % (rows % b"a", middle, rows % b"c")
    return payloads.page("instances", reading.instance)(payload(Answer(200, {}, body)), 0)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xed\xa0\xbd"', "\ufffd\ufffd\ufffd"),
        (b'"a\nb\x01\x00"', "a\nb\x01\x00"),
        (b'"caf\xe9"', "caf\ufffd"),
        (b'"\\x41\\u12"', "\ufffdx41\ufffdu12"),
        (b'"a\\\\ud83d\xff"', "a\\ud83d\ufffd"),
        (b"NaN", ""),
        (b"-Infinity", ""),
        (b"undefined", ""),
        (b"0x1F", ""),
        (b"9" * 5_000, ""),
        (b"[" * 5_000 + b'"deep"' + b"]" * 5_000, ""),
        (b'{"a":' * 5_000 + b"1" + b"}" * 5_000, ""),
    ],
)
def test_one_bad_value_costs_itself_alone(value: bytes, name: str) -> None:
    """An invalid value affects neither the rest of its row nor other rows."""
    found = listing(value)
    assert {row_id: row.name for row_id, row in found.rows.items()} == {
        "a": "neighbour",
        "b": name,
        "c": "neighbour",
    }
    assert (found.count, found.unreadable, found.total) == (3, 0, 3)
    assert found.rows["b"].name_readable is value.startswith(b'"')


@given(INSIDE_QUOTES, st.sampled_from(["name", "status", "imageUrl", "endpoint", "x"]))
def test_no_bytes_in_a_string_spoil_a_listing(inside: bytes, field: str) -> None:
    """With any bytes between the quotes, all three rows are read and can be stored."""
    found = listing(b'"%s"' % inside, field)
    assert list(found.rows) == ["a", "b", "c"]
    assert (found.count, found.unreadable) == (3, 0)
    row = found.rows["b"]
    assert is_plain(row.status)
    "".join([row.name, row.status, row.image]).encode()


@given(st.text("0123456789.eE+-xXNaInfity", min_size=1))
def test_no_bare_word_spoils_a_listing(word: str) -> None:
    """A malformed number makes only its own value unreadable."""
    assert list(listing(word.encode()).rows) == ["a", "b", "c"]


@given(DOCUMENTS)
def test_a_document_that_needs_no_mending_is_read_the_same_either_way(value: Json) -> None:
    """The lenient decoder reads a valid document like the strict one."""
    plain = orjson.dumps(value)
    assert decode(b"\xef\xbb\xbf" + plain) == orjson.loads(plain)


@given(st.binary() | ANYTHING.map(repr).map(str.encode))
def test_what_is_not_json_is_refused_and_never_worse(body: bytes) -> None:
    """Anything else raises `ValueError`, and decoded text has no surrogates."""
    try:
        found = decode(body)
    except ValueError:
        return
    repr(found).encode()


def test_of_equal_keys_the_last_one_counts() -> None:
    """If a key occurs twice, both decoders take the last value."""
    assert decode(b'{"a":1,"a":2}') == decode(b'{"a":NaN,"a":2}') == {"a": 2}


def test_an_id_that_cannot_be_read_exactly_is_none() -> None:
    """A row with an inexact ID is unreadable, so the listing is incomplete."""
    odd = (b'"caf\xe9"', b'"a\\u0000"', b'"a\nb"', b"1e400", b"1.5", b"9" * 30, b"true")
    for row_id in odd:
        found = listing(row_id, "id")
        assert (list(found.rows), found.unreadable) == (["a", "c"], 1)


@pytest.mark.parametrize("row", [b"null", b"[]", b'"x"', b"7", b"{}", b"NaN"])
def test_a_row_that_is_no_object_is_counted_as_unreadable(row: bytes) -> None:
    """A row that is not an object is counted as unreadable, and the others are read."""
    body = b'{"instances":[{"id":"a"},%s,{"id":"c"}],"total":3}' % row
    found = payloads.page("instances", reading.instance)(payload(Answer(200, {}, body)), 0)
    assert (list(found.rows), found.count, found.unreadable) == (["a", "c"], 3, 1)


@pytest.mark.parametrize("body", [b'{"a":"' + b'\\"' * 500_000, b"[" * 1_000_000, b'"' * 999_999])
def test_a_broken_document_costs_no_more_than_one_pass(body: bytes) -> None:
    """An unterminated string is not searched for again at every quote."""
    began = time.process_time()
    with pytest.raises(ValueError, match="not JSON"):
        decode(body)
    assert time.process_time() - began < 5.0

# SPDX-License-Identifier: Apache-2.0
"""Rows as upstream sends them, in all forms that were observed."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.lifecycle.reconcile import observed_columns
from novitai.upstream import payloads, reading
from novitai.upstream.models import (
    SshAccess,
    UpstreamInstance,
    UpstreamPort,
    UpstreamUtilization,
    UtilizationPoint,
)
from novitai.upstream.wire import Json, Object
from tests.upstream.strategies import ANYTHING, is_plain

ROW: Object = {
    "id": "3560b7fec915bbf9",
    "name": "trainer-1",
    "clusterId": "us-ca-6",
    "clusterName": "US-CA-06 (California)",
    "productId": "4090.16c62g",
    "productName": "RTX 4090 24GB",
    "imageUrl": "pytorch/pytorch:latest",
    "cpuNum": "16",
    "memory": "62",
    "gpuNum": "1",
    "rootfsSize": 60,
    "status": "running",
    "statusError": {"state": "", "message": ""},
    "portMappings": [{"port": 8080, "endpoint": "https://x-8080.test", "type": "http"}],
    "node": {"maxRootfsSize": 6144},
    "envs": [{"key": "A", "value": "the-secret-env"}],
    "kind": "gpu",
    "billingMode": "spot",
    "endTime": "-1",
    "spotStatus": "notified",
    "spotReclaimTime": "1785784550",
    "createdAt": "1785770950",
    "instancePrice": "35000",
    "keepDataDay": 7,
    "connectComponentSSH": {
        "sshCommand": "ssh -p 62248 root@proxy.us-ca-6.test",
        "password": "the-ssh-password",
        "isRunning": True,
    },
    "connectComponentWebTerminal": {
        "address": "https://t.test/?token=the-token",
        "username": "u",
        "password": "the-web-password",
    },
    "connectComponentJupyter": {"port": 8888, "address": "https://j.test/?token=the-token"},
}
FIELDS = sorted({*ROW, "sshCommand", "sshPassword", "lastStartedAt", "instancePrice", "total"})


def read(row: Object) -> UpstreamInstance:
    """Read a row that has an ID."""
    found = reading.instance(row)
    assert found is not None
    return found


def test_a_row_is_read_whole() -> None:
    """Numbers are read from text, times in milliseconds, and SSH access from its command."""
    found = read(ROW)

    assert found.spot_reclaim_at == 1_785_784_550_000
    assert not found.status_error
    assert found.ssh is not None
    assert (found.ssh.host, found.ssh.port, found.ssh.user) == (
        "proxy.us-ca-6.test",
        62248,
        "root",
    )
    assert found.ssh_password == "the-ssh-password"
    assert found.port_mappings[0].port == 8080
    assert found.created_at == 1_785_770_950_000
    assert (found.product_id, found.gpu_num, found.image) == (
        "4090.16c62g",
        1,
        "pytorch/pytorch:latest",
    )
    assert (found.billing_mode, found.instance_price) == ("spot", 35_000)
    assert (found.cluster_id, found.cluster_name) == ("us-ca-6", "US-CA-06 (California)")


@pytest.mark.parametrize("said", [None, "0", 0, "-1", "", "soon", [], 1785770950000, True])
def test_a_creation_time_that_cannot_be_one_is_not_known(said: Json) -> None:
    """Implausible creation times are absent, because they decide what may be deleted."""
    assert read({**ROW, "createdAt": said}).created_at is None


@pytest.mark.parametrize(
    ("name", "readable"), [("box", True), ("", True), (None, False), (42, False), ([], False)]
)
def test_a_name_that_is_not_text_is_not_readable(name: Json, readable: bool) -> None:
    """A name that is not text is marked, because such a row may have any marker."""
    assert read({"id": "1", "name": name}).name_readable is readable
    assert not read({"id": "1"}).name_readable


def test_numbers_may_be_numbers_where_text_is_usual_and_the_other_way_round() -> None:
    """Numbers may be JSON numbers or text."""
    other: Object = {
        **ROW,
        "spotReclaimTime": 1785784550,
        "node": [{"maxRootfsSize": 6144}],
        "portMappings": [{"port": "8080", "endpoint": "https://x-8080.test", "type": "http"}],
    }
    assert read(other) == read(ROW)


@pytest.mark.parametrize(
    "fields",
    [
        {"sshCommand": "ssh -p 62248 root@proxy.us-ca-6.test", "sshPassword": "p"},
        {"sshCommand": "ssh -p 62248 root@proxy.us-ca-6.test", "password": "p"},
        {
            "connectComponentSSH": {
                "user": "root",
                "command": "ssh root@proxy.us-ca-6.test -p 62248",
                "password": "p",
            }
        },
        {
            "connectComponentSSH": {"sshCommand": "", "password": ""},
            "sshCommand": "ssh -p62248 root@proxy.us-ca-6.test",
            "sshPassword": "p",
        },
    ],
)
def test_ssh_may_be_nested_or_flat(fields: Object) -> None:
    """SSH access is read in the three observed forms."""
    found = read({"id": "x", **fields})
    assert found.ssh is not None
    assert (found.ssh.host, found.ssh.port) == ("proxy.us-ca-6.test", 62248)
    assert found.ssh_password == "p"


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("ssh root@35.164.116.189", ("35.164.116.189", 22, "root")),
        ("ssh -o StrictHostKeyChecking=no -p 38597 me@h.test", ("h.test", 38597, "me")),
        ("ssh -i ~/.ssh/id h.test", ("h.test", 22, "root")),
        ("ssh://me@h.test:2200", ("h.test", 2200, "me")),
        ("ssh://h.test", ("h.test", 22, "root")),
        ("ssh -p 22 root@[2001:db8::1]", ("[2001:db8::1]", 22, "root")),
        ("ssh://root@[2001:db8::1]:2200/", ("[2001:db8::1]", 2200, "root")),
        ("ssh -p x root@h.test", None),
        ("ssh -p 0 root@h.test", None),
        ("ssh -p 65536 root@h.test", None),
        ("ssh -oProxyCommand=id -p 22 root@h.test", ("h.test", 22, "root")),
        ("ssh -p 22 root@-oProxyCommand=id", None),
        ("ssh -p 22 -oProxyCommand=id@h.test", None),
        ("ssh://-oProxyCommand=id@h.test:22", None),
        ("ssh -p 22 ro;ot@h.test", None),
        ("ssh -p 22 root@h.test;id", None),
        ("ssh -p 22 root@h.te\x1bst", None),
        ("ssh -p 22 root@h.test\r\nProxyCommand id", ("h.test", 22, "root")),
        ("ssh root@" + "h" * 1_000_000, None),
        ("ssh -p", None),
        ("ssh://[", None),
        ("", None),
    ],
)
def test_an_ssh_command_is_taken_apart(command: str, expected: tuple[str, int, str] | None) -> None:
    """An SSH command is parsed in any order; a malformed one is absent."""
    found = reading.ssh_access(command)
    wanted = None if expected is None else SshAccess(*expected)
    assert found == wanted


@pytest.mark.parametrize(
    "command", ["ssh -p 22 root:pw@h.test", "ssh://root:pw@h.test:22", "ssh root:pw@h.test -p 22"]
)
def test_a_password_in_an_ssh_command_is_a_password(command: str) -> None:
    """A password in the command is not part of the user; a separate one takes precedence."""
    found = read({"id": "x", "sshCommand": command})
    assert found.ssh is not None
    assert (found.ssh.host, found.ssh.port, found.ssh.user) == ("h.test", 22, "root")
    assert found.ssh_password == "pw"
    assert "pw" not in repr(found)
    assert read({"id": "x", "sshCommand": command, "sshPassword": "own"}).ssh_password == "own"


@pytest.mark.parametrize(
    ("said", "endpoint", "kind"),
    [
        ({"endpoint": "https://x.test", "type": "HTTP"}, "https://x.test", "http"),
        ({"endpoint": "https://x.test", "type": "https"}, "https://x.test", "http"),
        ({"endpoint": "x.test:22", "type": " Tcp "}, "x.test:22", "tcp"),
        ({"endpoint": "x.test:22", "type": "udp"}, "x.test:22", "udp"),
        ({"endpoint": "x.test:22", "type": ""}, "x.test:22", "tcp"),
        ({"endpoint": "https://x.test"}, "https://x.test", "http"),
        ({"endpoint": "", "type": "grpc"}, "", "other"),
        ({"endpoint": "javascript:alert(1)", "type": "http"}, "", "http"),
        ({"endpoint": "-oProxyCommand=id:22", "type": "tcp"}, "", "tcp"),
        ({"endpoint": "x.test 22", "type": "tcp"}, "", "tcp"),
        ({"endpoint": ["x"], "type": {"a": 1}}, "", "other"),
    ],
)
def test_a_mapping_is_an_address_and_one_of_four_words(
    said: Object, endpoint: str, kind: str
) -> None:
    """An invalid address is empty; an unknown type is derived from the address."""
    (found,) = read({"id": "x", "portMappings": [{"port": 80, **said}]}).port_mappings
    assert (found.port, found.endpoint, found.type) == (80, endpoint, kind)


def test_a_row_is_bounded_whatever_upstream_sends() -> None:
    """A million characters per field and 10,000 ports result in a few kilobytes."""
    huge = "x" * 1_000_000
    row: Object = {
        **ROW,
        **dict.fromkeys(("name", "status", "imageUrl", "billingMode", "spotStatus"), huge),
        "clusterName": huge,
        "statusError": {"state": huge, "message": huge},
        "portMappings": [
            {"port": port, "endpoint": f"https://h.test/{huge[:250]}", "type": huge}
            for port in range(1, 10_001)
        ],
        "connectComponentSSH": {"sshCommand": f"ssh root@{huge}", "password": huge},
        "connectComponentJupyter": {"address": f"https://h.test/{huge}"},
        "connectComponentWebTerminal": dict.fromkeys(("address", "username", "password"), huge),
    }
    found = read(row)
    assert found.name == huge
    assert found.shown_name == "x" * 255
    kept = [getattr(found, name) for name in found.__dataclass_fields__ if name != "name"]
    kept += [(mapping.port, mapping.endpoint) for mapping in found.port_mappings]
    assert len(repr(kept)) < 32_000
    assert len(found.port_mappings) == 32


def test_a_port_that_is_mapped_twice_is_one_mapping() -> None:
    """Of duplicate mappings, one with an endpoint is kept."""
    rows: list[Json] = [
        {"port": 80, "endpoint": "", "type": "http"},
        {"port": 80, "endpoint": "https://x.test", "type": "http"},
        {"port": "80", "endpoint": "https://y.test", "type": "HTTP"},
    ]
    (found,) = read({"id": "x", "portMappings": rows}).port_mappings
    assert found.endpoint == "https://x.test"


def test_an_error_of_upstreams_is_one_short_line_without_secrets() -> None:
    """The error is shown to every reader and in webhooks, so it has no secrets."""
    said = "\x1b[31mpull of https://bob:pw@hub.test\r\nfailed\u202e"
    found = read({"id": "x", "statusError": {"state": "Pull\nFailed", "message": said}})
    assert found.status_error.state == "Pull Failed"
    assert found.status_error.message == "[31mpull of https://***@hub.test  failed"
    assert read({"id": "x", "statusError": said}).status_error.message


def test_an_error_of_upstreams_repeats_no_secret_of_its_row() -> None:
    """Variables and passwords that the container logged are masked in the error."""
    address = "https://bob:pass%2Fw@jupyter.test/lab?token=jupyter-token#fragment"
    said = "pass/w jupyter-token ssh-word terminal-word env-word port-token 1"
    found = read(
        {
            "id": "x",
            "statusError": {"state": "env-word", "message": said},
            "connectComponentJupyter": {"address": address},
            "connectComponentSSH": {"sshCommand": "ssh root:ssh-word@host.test"},
            "connectComponentWebTerminal": {"password": "terminal-word"},
            "portMappings": [{"port": 1, "endpoint": "https://x.test/?t=port-token"}],
            "envs": [{"key": "HF_TOKEN", "value": "env-word"}, {"key": "N", "value": "1"}],
        }
    )
    assert found.status_error.state == "***"
    assert found.status_error.message == "*** *** *** *** *** *** 1"


def test_a_row_of_nothing_but_an_id_is_a_row() -> None:
    """Every field except the ID is optional."""
    found = read({"id": 42})
    assert (found.id, found.status, found.ssh) == ("42", "", None)


@pytest.mark.parametrize("row_id", ["", "  ", None, [], {}, True, "x" * 300])
def test_a_row_without_an_id_is_none(row_id: Json) -> None:
    """A row without an ID is None."""
    assert reading.instance({**ROW, "id": row_id}) is None


def test_no_repr_shows_a_secret() -> None:
    """No repr shows passwords, envs or addresses that may contain a token."""
    template = reading.template(
        {"Id": "1", "envs": [{"key": "A", "value": "the-secret-env"}], "imageAuth": "the-auth"}
    )
    assert "the-" not in repr(read(ROW)) + repr(template)


def test_prices_that_are_absent_or_zero_are_not_offered() -> None:
    """A price that is absent or "0" means not offered."""
    for price in ("0", 0, None, "", "-5", "x"):
        found = reading.product({"id": "4090", "price": "35000", "spotPrice": price})
        assert found is not None
        assert (found.price, found.spot_price) == (35000, None)


def test_a_template_has_its_ports_flattened() -> None:
    """Port numbers that upstream groups by type become single ports."""
    found = reading.template(
        {
            "Id": "107672",
            "ports": [{"type": "http", "ports": [8888, "6006"]}, {"type": "tcp", "ports": [22, 0]}],
            "tools": [{"name": "Jupyter", "port": "8888", "type": "http"}],
        }
    )
    assert found is not None
    assert found.ports == (
        UpstreamPort(8888, "http"),
        UpstreamPort(6006, "http"),
        UpstreamPort(22, "tcp"),
    )
    assert found.tools[0].port == 8888


@pytest.mark.parametrize(
    ("group", "ports"),
    [
        ({"type": "TCP", "ports": [22]}, [(22, "tcp")]),
        ({"type": "Https", "ports": [443]}, [(443, "http")]),
        ({"type": "udp", "ports": [53]}, []),
        ({"type": "", "ports": [80]}, []),
        ({"type": None, "ports": [80]}, []),
        ({"type": 7, "ports": [80]}, []),
        ({"type": ["http"], "ports": [80]}, []),
        ({"ports": [80]}, []),
        ({"type": "http", "port": "80"}, [(80, "http")]),
        ({"type": "http", "ports": [80, 80, "80", True, None, -1, 70000]}, [(80, "http")]),
        ({"type": "http", "ports": {"a": 1}}, []),
        ({"type": "http"}, []),
    ],
)
def test_a_port_that_cannot_be_published_is_left_out(
    group: Object, ports: list[tuple[int, str]]
) -> None:
    """Only HTTP and TCP ports are read, in any letter case, without duplicates."""
    found = reading.template({"Id": "1", "ports": [group, group], "tools": [group]})
    assert found is not None
    assert [(port.port, port.type) for port in found.ports] == ports


def test_a_tool_is_read_as_a_port_is() -> None:
    """Only tools with ports that can be published are read, without duplicates."""
    rows: list[Json] = [
        {"name": "Jupyter", "port": "8888", "type": "HTTP"},
        {"name": "Jupyter", "port": 8888, "type": "http"},
        {"name": "Odd", "port": 9999, "type": "udp"},
        {"name": "Odd", "port": 9999},
    ]
    found = reading.template({"Id": "1", "tools": rows})
    assert found is not None
    assert [(tool.name, tool.port, tool.type) for tool in found.tools] == [
        ("Jupyter", 8888, "http")
    ]


@pytest.mark.parametrize(
    ("envs", "read_as"),
    [
        ([{"key": "A", "value": True}, {"key": "B", "value": False}], {"A": "true", "B": "false"}),
        ([{"key": "A", "value": 1}, {"key": "B", "value": 1.5}], {"A": "1", "B": "1.5"}),
        ([{"key": "A", "value": None}, {"key": "B"}], {"A": "", "B": ""}),
        ([{"key": "A", "value": "two\nlines\t\x1b"}], {"A": "two\nlines\t\x1b"}),
        ([{"key": "A", "value": {"b": 1}}, {"key": "B", "value": ["c"]}], {}),
        ([{"key": "", "value": "x"}, {"value": "x"}, {"key": None, "value": "x"}], {}),
        ({"key": "A", "value": "x"}, {"A": "x"}),
        ({"A": "x", "B": True}, {"A": "x", "B": "true"}),
        (["A=x", "B=c=d", "C", "=x"], {"A": "x", "B": "c=d", "C": ""}),
        ([None, 7, [], "A=x"], {"A": "x"}),
        (7, {}),
        ("A=x", {"A": "x"}),
        (None, {}),
    ],
)
def test_variables_are_read_in_every_shape(envs: Json, read_as: dict[str, str]) -> None:
    """A boolean or number as a variable becomes text, as in a shell."""
    found = reading.template({"Id": "1", "envs": envs})
    assert found is not None
    assert dict(found.envs) == read_as


def test_a_launch_is_read_as_it_was_written() -> None:
    """A command may have several lines, and one that is too long for Novita stays too long."""
    found = reading.template(
        {
            "Id": "1",
            "name": "a\nb",
            "startCommand": "bash -c '\n\techo\n'",
            "entrypoint": "x" * 1_000_000,
            "image": "y" * 1_000_000,
            "envs": [{"key": "A", "value": "z" * 1_000_000}] * 10_000,
        }
    )
    assert found is not None
    assert (found.name, found.start_command) == ("a b", "bash -c '\n\techo\n'")
    assert 2_047 < len(found.entrypoint) < 10_000
    assert 500 < len(found.image) < 2_000
    assert 100 < len(found.envs) < 1_000
    assert 4_095 < len(found.envs[0][1]) < 10_000


def test_prices_and_sizes_beyond_reason_are_not_known() -> None:
    """Implausible prices and sizes are absent, so that sums of them do not overflow."""
    row: Object = {"id": "x", "price": 9 * 10**18, "spotPrice": "35000", "maxRootFS": 9 * 10**18}
    found = reading.product(row)
    assert found is not None
    assert (found.price, found.spot_price, found.max_rootfs) == (None, 35_000, None)
    assert read({"id": "x", "instancePrice": 9 * 10**18, "gpuNum": 2**40}).gpu_num is None


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=8))
def test_any_json_in_any_field_is_read(fields: dict[str, Json]) -> None:
    """Reading a row never raises."""
    row: Object = {**ROW, **fields}
    found = reading.instance(row)
    assert found is None or found.id
    assert (found is None) == (not reading.identifier(row["id"]))
    if found is not None:
        assert is_plain(found.status)
        assert len(found.shown_name) <= 255
        assert len(observed_columns.digest(found)) == 32


@given(
    st.dictionaries(
        st.sampled_from(["id", "Id", "name", "ports", "envs", "tools", "volumes", "regions"]),
        ANYTHING,
    )
)
def test_any_json_in_a_catalogue_row_is_read(row: dict[str, Json]) -> None:
    """Reading a product, template or cluster never raises."""
    reading.product(row)
    reading.template(row)
    reading.cluster(row)


def test_a_catalogue_is_bounded() -> None:
    """The catalogue is limited, because each cluster causes further calls."""
    body: Object = {"data": [{"id": number} for number in range(5_000)]}
    assert len(payloads.rows("data", reading.cluster)(body, 0)) == payloads.MAX_ROWS


def test_reading_a_page_costs_a_few_times_what_copying_it_costs() -> None:
    """Listings run on the loop that serves requests, so a row has to be cheap.

    The yardstick is a deep copy of the same page; a ratio of the best of interleaved rounds does
    not depend on the machine or its load.
    """
    rows = [{**ROW, "id": f"{number:016x}"} for number in range(1000)]
    page: Object = orjson.loads(orjson.dumps({"instances": rows}))
    reader = payloads.page("instances", reading.instance)

    def processor_time(act: Callable[[], object]) -> float:
        began = time.process_time()
        act()
        return time.process_time() - began

    read, copied = [], []
    for _ in range(5):
        read.append(processor_time(lambda: reader(page, 0)))
        copied.append(processor_time(lambda: copy.deepcopy(page)))
    assert len(reader(page, 0).rows) == 1000
    assert min(read) < 8 * min(copied)


def test_metrics_are_read_in_order_and_on_our_clock() -> None:
    """Values may be text; a point without a usable time or value is skipped."""
    points: Json = [
        {"timestamp": "1760000060", "value": "7.5"},
        {"timestamp": 1760000000, "value": 5},
        {"timestamp": "1760000015", "value": None},
        {"timestamp": "soon", "value": 5},
        {"timestamp": "1760000030", "value": -1},
        {"timestamp": "1760000045", "value": "1e999"},
        {"value": 5},
        "5",
    ]
    row: Object = {
        "cpuUtilization": points,
        "memUtilization": "none",
        "gpuUtilization": {"avg": points, "gpuIds": [{"gpuId": "a", "items": points}, {}]},
    }
    found = reading.utilization(row, 2_000)
    expected = (
        UtilizationPoint(1_759_999_998_000, 5.0),
        UtilizationPoint(1_760_000_058_000, 7.5),
    )
    assert found == UpstreamUtilization(gpu=expected, cpu=expected, gpus=(expected, ()))


@given(st.dictionaries(st.sampled_from(sorted(reading.METRICS)), ANYTHING))
def test_no_metrics_break_the_reading(row: Object) -> None:
    """Whichever values Novita sends, the times are in order and the values are percentages."""
    found = reading.utilization(row)
    for series in (found.gpu, found.gpu_memory, found.cpu, found.memory, found.disk, *found.gpus):
        assert [point.at for point in series] == sorted({point.at for point in series})
        assert all(point.percent >= 0 for point in series)

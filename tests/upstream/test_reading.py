# SPDX-License-Identifier: Apache-2.0
"""Rows as upstream sends them, in all the forms that were seen."""

from __future__ import annotations

import time

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from novitai.upstream import payloads, reading
from novitai.upstream.models import Port, SshAccess, UpstreamInstance
from novitai.upstream.wire import Json, Object

from .test_wire import ANYTHING

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
    """Read a row that has an id."""
    found = reading.instance(row)
    assert found is not None
    return found


def test_a_row_is_read_whole() -> None:
    """Numbers from text, times in milliseconds, SSH out of its command."""
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
    """It decides what may be deleted: milliseconds, zero and words are no time."""
    assert read({**ROW, "createdAt": said}).created_at is None


@pytest.mark.parametrize(
    ("name", "readable"), [("box", True), ("", True), (None, False), (42, False), ([], False)]
)
def test_a_name_that_is_not_text_is_not_readable(name: Json, readable: bool) -> None:
    """Such a row may bear any marker, which its reader has to know."""
    assert read({"id": "1", "name": name}).name_readable is readable
    assert not read({"id": "1"}).name_readable


def test_numbers_may_be_numbers_where_text_is_usual_and_the_other_way_round() -> None:
    """The reference and the service disagree on types."""
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
    """Three forms were seen."""
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
        ("ssh -p x root@h.test", None),
        ("ssh -p", None),
        ("ssh://[", None),
        ("", None),
    ],
)
def test_an_ssh_command_is_taken_apart(command: str, expected: tuple[str, int, str] | None) -> None:
    """In whatever order it is written; what cannot be read is absent."""
    found = reading.ssh_access(command)
    wanted = None if expected is None else SshAccess(*expected)
    assert found == wanted


def test_a_row_of_nothing_but_an_id_is_a_row() -> None:
    """Every other field is optional."""
    found = read({"id": 42})
    assert (found.id, found.status, found.ssh) == ("42", "", None)


@pytest.mark.parametrize("row_id", ["", "  ", None, [], {}, True, "x" * 300])
def test_a_row_without_an_id_is_none(row_id: Json) -> None:
    """It could not be told apart from others."""
    assert reading.instance({**ROW, "id": row_id}) is None


def test_no_repr_shows_a_secret() -> None:
    """Passwords, envs and addresses that may carry a token stay out of logs."""
    template = reading.template(
        {"Id": "1", "envs": [{"key": "A", "value": "the-secret-env"}], "imageAuth": "the-auth"}
    )
    assert "the-" not in repr(read(ROW)) + repr(template)


def test_prices_that_are_absent_or_zero_are_not_offered() -> None:
    """A spot price of "0" is no spot offer."""
    for price in ("0", 0, None, "", "-5", "x"):
        found = reading.product({"id": "4090", "price": "35000", "spotPrice": price})
        assert found is not None
        assert (found.price, found.spot_price) == (35000, None)


def test_a_template_has_its_ports_flattened() -> None:
    """Upstream groups port numbers by type."""
    found = reading.template(
        {
            "Id": "107672",
            "ports": [{"type": "http", "ports": [8888, "6006"]}, {"type": "tcp", "ports": [22, 0]}],
            "tools": [{"name": "Jupyter", "port": "8888", "type": "http"}],
        }
    )
    assert found is not None
    assert found.ports == (Port(8888, "http"), Port(6006, "http"), Port(22, "tcp"))
    assert found.tools[0].port == 8888


@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=8))
def test_any_json_in_any_field_is_read(fields: dict[str, Json]) -> None:
    """A row never raises: it is read, or it has no id."""
    row: Object = {**ROW, **fields}
    found = reading.instance(row)
    assert found is None or found.id
    assert (found is None) == (not reading.identifier(row["id"]))


@given(
    st.dictionaries(
        st.sampled_from(["id", "Id", "name", "ports", "envs", "tools", "volumes", "regions"]),
        ANYTHING,
    )
)
def test_any_json_in_a_catalogue_row_is_read(row: dict[str, Json]) -> None:
    """Likewise for products, templates and clusters."""
    reading.product(row)
    reading.template(row)
    reading.cluster(row)


def test_ten_thousand_rows_cost_well_under_a_second() -> None:
    """The whole account is read every few seconds, on the loop that serves requests."""
    rows = [{**ROW, "id": f"{number:016x}"} for number in range(1000)]
    page = orjson.dumps({"instances": rows, "total": 10_000})
    reader = payloads.page("instances", reading.instance)

    began = time.process_time()
    for _ in range(10):
        assert len(reader(orjson.loads(page), 0).rows) == 1000
    assert time.process_time() - began < 1.0

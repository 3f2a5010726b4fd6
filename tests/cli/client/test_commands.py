# SPDX-License-Identifier: Apache-2.0
"""Each line of the table of commands does what it says, against a live server."""

from __future__ import annotations

import gc
import json
import os
import re
import select
import shlex
import signal
import stat
import subprocess
import threading
import time
import warnings
from typing import Any

import httpx2
import pytest

from novitai.cli.client.failures import CommandFailed
from novitai.cli.client.reaching import ssh_target
from tests.blackbox.harness import ADMIN_KEY, until
from tests.cli.client.program import PRODUCT, TEMPLATE, WITHIN, Program, Ran, next_line

CREATE = ("--product", PRODUCT, "--template", TEMPLATE)


def served(program: Program, path: str) -> Any:
    """Read an object of the API as the server sends it."""
    answer = program.server.server.http.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


def without_time(view: dict[str, Any]) -> dict[str, Any]:
    """Leave out what changes with each listing of the account."""
    return {name: value for name, value in view.items() if name not in {"cost", "observedAt"}}


def script(program: Program, name: str, text: str) -> dict[str, str]:
    """Put a program on the PATH, and return the environment with it."""
    folder = program.folder / "bin"
    folder.mkdir(exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return {"PATH": f"{folder}:{program.env['PATH']}"}


def test_a_login_is_kept_for_its_owner_only(program: Program) -> None:
    """The key is checked, kept with mode 0600, used without the environment, and removed."""
    bare = {"NOVITAI_URL": "", "NOVITAI_API_KEY": ""}
    refused = program.run("login", program.server.url, "--key-stdin", stdin="nvt_wrong\n", env=bare)
    file = program.folder / "config/novitai/config.toml"
    assert refused.code == 4
    assert not file.exists()
    file.parent.mkdir(parents=True)
    file.write_text("# mine\n[profiles.other]\nurl = 'http://x'\n")
    file.chmod(0o600)
    told = program.ok("login", program.server.url, "--key-stdin", stdin=f"{ADMIN_KEY}\n", env=bare)
    assert "scopes: admin" in told
    assert ADMIN_KEY not in told
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert file.read_text().startswith("# mine\n[profiles.other]\nurl = 'http://x'\n")
    ran = program.run("ls", env=bare)
    assert ran.code == 0
    assert f"{program.server.url} (profile default)" in ran.err
    again = program.ok(
        "login", program.server.url, "--json", env={**bare, "NOVITAI_API_KEY": ADMIN_KEY}
    )
    assert json.loads(again)["scopes"] == ["admin"]
    assert program.run("logout", env=bare).code == 0
    assert "other" in file.read_text()
    assert ADMIN_KEY not in file.read_text()
    assert program.run("ls", env=bare).code == 2


def test_whoami_shows_what_the_key_may_do(program: Program) -> None:
    """Name, scopes and limits of the key, and the server."""
    key = program.server.key(
        "write", name="ci", limits={"maxInstances": 3, "budget": {"amount": 20, "period": "day"}}
    )
    shown = program.ok("whoami", env={"NOVITAI_API_KEY": key})
    assert program.server.url in shown
    assert re.search(r"^scopes: +write$", shown, re.MULTILINE)
    assert re.search(r"^instances: +at most 3$", shown, re.MULTILINE)
    assert re.search(r"^budget: +\$20.00 in a day$", shown, re.MULTILINE)


def test_offers_are_sorted_and_say_why_others_are_none(program: Program) -> None:
    """Cheapest first; what was ruled out follows, with the reason."""
    lines = program.ok("offers", "--max-price", "0.60").splitlines()
    prices = [float(found[1]) for line in lines if (found := re.search(r"\$(\d+\.\d+) +-$", line))]
    assert prices == sorted(prices)
    assert len(prices) > 3
    assert any("above $0.60 an hour" in line for line in lines)
    assert any("no stock" in line for line in lines)
    assert "not in AS-SGP-02" in program.ok("offers", "--region", "AS-SGP-02")
    here = program.ok("offers", PRODUCT, "--gpus", "2", "--max-price", "0.75", "--no-header")
    assert here.splitlines()[0].split("  ")[0] == PRODUCT
    assert "$0.70" in here.splitlines()[0]
    assert "over the maximum of 0.75" in here


def test_a_quote_is_what_a_create_pays(program: Program) -> None:
    """`quote` names the price, and `create --quote` buys it."""
    quote = json.loads(
        program.ok("quote", *CREATE, "--name", "quoted", "--region", "any", "--json")
    )
    assert quote["candidates"][0]["hourlyPrice"] == 0.35
    shown = program.ok("quote", *CREATE, "--region", "any")
    assert "$0.35 an hour in CN-HK-01" in shown
    line = program.ok(
        "create", "quoted", *CREATE, "--region", "any", "--quote", quote["quoteId"], "--wait"
    )
    assert "$0.35 an hour" in line


def test_a_create_answers_with_one_line(program: Program) -> None:
    """ID, product, region, price and end are on the line; all options reach the server."""
    options = ("--gpus", "2", "--max-run", "8h", "--idle", "30m", "--max-spend", "9.5")
    more = ("--tag", "team=vision", "--env", "A=b", "--disk", "80", "--on-limit", "delete")
    ran = program.run("create", "one-line", *CREATE, *options, *more)
    assert ran.code == 0
    (line,) = ran.out.splitlines()
    # The price is about that of the cheapest offer until one is bought.
    price = r"(?:about )?\$0\.\d\d an hour"
    found = re.fullmatch(rf"(inst_\w+)  2 x RTX 4090 24GB  \S+  {price}  deletes after 8 h", line)
    assert found is not None, line
    assert f"{program.server.url} (NOVITAI_URL)" in ran.err
    view = served(program, f"/api/instances/{found[1]}")
    assert view["limits"] == {"maxSpend": 9.5, "maxRunMinutes": 480, "onLimit": "delete"}
    assert view["autoStop"]["idleMinutes"] == 30
    assert (view["gpuNum"], view["rootfsSize"], view["tags"]) == (2, 80, {"team": "vision"})


def test_a_create_that_waits_shows_the_way(program: Program) -> None:
    """`--wait` shows each status with its time on standard error, and the result last."""
    ran = program.run("create", "waited", *CREATE, "--wait")
    assert ran.code == 0
    statuses = re.findall(r"^ +\d+\.\d s  (\w+)$", ran.err, re.MULTILINE)
    assert statuses[0] == "creating"
    assert statuses[-1] == "running"
    assert re.fullmatch(r"inst_\w+  1 x .+ an hour  no limit stops it\n", ran.out)
    repeated = [
        program.ok("create", "once", *CREATE, "--idempotency-key", "k-1", "--json") for _ in "ab"
    ]
    assert repeated[0] == repeated[1]


def test_a_wait_closes_its_stream_wherever_it_is(program: Program) -> None:
    """A wait that ends while its event stream still connects leaves neither thread nor socket."""
    program.rent("waited-for")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ResourceWarning)
        for _ in range(10):
            program.ok("wait", "waited-for")
            assert [one.name for one in threading.enumerate() if one.name == "statuses"] == []
        gc.collect()
    assert [str(one.message) for one in caught] == []


def test_json_is_the_object_of_the_api(program: Program) -> None:
    """`--json` of a list and of an object is what the server sends, to the last field."""
    instance_id = program.rent("as-json", "--tag", "team=json", "--max-run", "2h")
    one = json.loads(program.ok("get", "as-json", "--json"))
    assert without_time(one) == without_time(served(program, f"/api/instances/{instance_id}"))
    assert set(one["cost"]) >= {"accrued", "accruedAtMost", "asOf", "currency", "hourlyPrice"}
    rows = json.loads(program.ok("ls", "--tag", "team=json", "--json"))["instances"]
    assert [without_time(row) for row in rows] == [without_time(one)]
    events = json.loads(program.ok("events", instance_id, "--json"))
    expected = served(program, f"/api/instances/{instance_id}/events")["events"]
    assert events["events"] == expected


def test_a_list_shows_prices_costs_and_ends(program: Program) -> None:
    """`ls` and `ps` have the columns, the filters, and the sums on standard error."""
    program.rent("listed-1", "--tag", "team=list", "--max-run", "8h")
    gone = program.create("listed-2", "--tag", "team=list")
    program.ok("delete", gone, "--yes")
    program.ok("wait", gone, "--for", "terminated")
    ran = program.run("ls", "--tag", "team=list")
    heading, row = ran.out.splitlines()
    assert heading.split() == ["NAME", "STATUS", "PRODUCT", "REGION", "$/H", "COST", "STOPS"]
    assert re.fullmatch(
        r"listed-1 +running +1 x RTX 4090 24GB +CN-HK-01 +\$0\.35 +\$0\.\d+ +in (8 h|7 h 5\d min)",
        row,
    )
    assert "1 instance, 1 billed at $0.35 an hour, $0." in ran.err
    names = program.ok("ps", "-a", "--tag", "team=list", "--columns", "name,status", "--no-header")
    assert sorted(names.split()) == ["listed-1", "listed-2", "running", "terminated"]
    assert program.ok("ls", "--tag", "team=list", "--status", "stopped") == ""


def test_a_list_can_be_watched(program: Program) -> None:
    """`ls --watch` shows the list and then each change, from the stream; Ctrl-C ends it."""
    program.rent("watched", "--tag", "team=watch")
    with program.started("ls", "--watch", "--tag", "team=watch", "--columns", "name,status") as one:
        assert next_line(one.stdout).split() == ["NAME", "STATUS"]
        assert next_line(one.stdout).split() == ["watched", "running"]
        program.ok("stop", "watched")
        # A reader that is slow sees the later status only.
        while (line := next_line(one.stdout).split()) != ["watched", "stopped"]:
            assert line == ["watched", "stopping"]
        one.send_signal(signal.SIGINT)
        assert one.wait(WITHIN) == 130
        assert b"Traceback" not in one.communicate(timeout=30)[1]


def test_events_can_be_followed(program: Program) -> None:
    """`events` lists the past, `events -f` shows new ones as they are committed."""
    instance_id = program.rent("followed")
    past = program.ok("events", "followed", "--columns", "type", "--no-header").split()
    assert past == ["instance.created", "instance.starting", "instance.running"]
    assert program.ok("events", "followed", "--tail", "1", "--no-header").count("\n") == 1
    for of in (("followed",), ()):
        oldest_first = program.ok("events", *of, "--columns", "id", "--no-header").split()
        newest_first = program.ok("events", *of, "--columns", "id", "--no-header", "--newest")
        assert newest_first.split() == oldest_first[::-1]
        last = program.ok("events", *of, "--columns", "id", "--no-header", "--tail", "2")
        assert last.split() == oldest_first[-2:]
    only = program.ok("events", "--type", "instance.running", "--columns", "type,instance")
    assert instance_id in only
    assert "instance.created" not in only
    misspelt = program.run("events", "--type", "instance.runing")
    assert misspelt.code == 2
    assert "instance.running" in misspelt.err
    with program.started("events", "-f", "followed", "--columns", "type,instance") as one:
        while "following" not in next_line(one.stderr):
            pass
        # The stream may not be open yet: the tag is changed until it shows that.
        for number in range(50):
            program.server.server.http.patch(
                f"/api/instances/{instance_id}", json={"tags": {"n": str(number)}}
            )
            assert one.stdout is not None
            if select.select([one.stdout], [], [], 1.0)[0]:
                break
        assert next_line(one.stdout).split() == ["instance.updated", instance_id]


def test_verbs_say_what_they_save(program: Program) -> None:
    """Stop, start, restart and delete by name and ID, with what goes on costing."""
    first, second = program.rent("verb-1", "--disk", "100"), program.rent("verb-2")
    stopped = program.ok("stop", "verb-1", second).splitlines()
    assert stopped == [
        (
            "verb-1  stopping  saves $0.35 an hour; its disk goes on costing $0.20 a day until it "
            "is deleted"
        ),
        "verb-2  stopping  saves $0.35 an hour; its disk costs nothing",
    ]
    program.ok("wait", first, "--for", "stopped")
    program.ok("wait", second, "--for", "stopped")
    assert program.ok("stop", "verb-1") == "verb-1  stopped (nothing to do)\n"
    started = program.ok("start", "verb-1")
    assert started == "verb-1  starting  costs $0.35 an hour while it runs\n"
    program.ok("wait", first)
    restarted = json.loads(program.ok("restart", "verb-1", "--json"))
    assert restarted["instanceId"] == first
    both = program.run("delete", "verb-1", "no-such-one", "verb-2", "--yes")
    assert both.code == 3
    assert "verb-1  terminating  saves $0.35 an hour; nothing goes on costing" in both.out
    assert "verb-2  terminating  saves nothing more an hour: it is not billed" in both.out
    assert "no-such-one: no instance is called" in both.err
    program.ok("wait", first, "--for", "terminated")


def test_everything_can_be_stopped(program: Program) -> None:
    """`stop --all` tells the saving in its question, stops what runs, and names it."""
    program.rent("all-1")
    asked = program.run("stop", "--all")
    assert asked.code == 2
    assert re.search(
        r"Stop \d+ running instances? on http.+ That saves \$\d+\.\d\d an hour", asked.err
    )
    told = program.ok("stop", "--all", "--yes")
    assert "all-1" in told
    program.ok("wait", "all-1", "--for", "stopped")
    assert program.run("stop").code == 2


def test_limits_are_shown_and_changed(program: Program) -> None:
    """`limits` changes single limits and removes them with `none`; `keep` puts the stop off."""
    instance_id = program.rent("limited", "--max-run", "2h")
    program.ok(
        "limits", "limited", "--max-spend", "20", "--delete-after-stopped", "1d", "--idle", "30m"
    )
    program.ok("limits", "limited", "--stop-at", "2090-01-01T00:00Z", "--protect", "it trains")
    view = served(program, f"/api/instances/{instance_id}")
    assert view["limits"] == {
        "maxSpend": 20.0,
        "maxRunMinutes": 120,
        "stopAt": "2090-01-01T00:00:00.000Z",
        "onLimit": "stop",
        "deleteAfterStoppedMinutes": 1440,
    }
    assert view["protected"] == {"reason": "it trains"}
    assert program.run("delete", "limited", "--yes").code == 5
    kept = program.ok("keep", "limited", "1h")
    assert re.match(
        r"limited  stops in 1 h (?:[12]\d|30) min .*goes on costing \$0\.35 an hour", kept
    )
    shown = program.ok(
        "limits", "limited", "--max-spend", "none", "--idle", "none", "--protect", "none"
    )
    assert re.search(r"^auto-stop: +none$", shown, re.MULTILINE)
    assert "maxSpend" not in served(program, f"/api/instances/{instance_id}")["limits"]
    assert program.run("limits", "limited", "--max-spend", "much").code == 2
    assert program.run("limits", "limited", "--stop-at", "soon").code == 2


def test_costs_are_grouped_and_add_up(program: Program) -> None:
    """`costs` takes a period in words, a group and a bucket, and prints tables, JSON and CSV."""
    program.rent("costly", "--tag", "team=costs")
    ran = program.run("costs", "--by", "tag:team")
    assert ran.code == 0
    assert ran.out.splitlines()[0].split() == ["TEAM", "COST", "AT", "MOST", "GPU", "HOURS"]
    assert "an hour, today $" in ran.err
    report = json.loads(program.ok("costs", "--for", "today", "--by", "tag:team", "--json"))
    assert "costs" in {row["key"] for row in report["rows"]}
    assert sum(row["amount"] for row in report["rows"]) == pytest.approx(report["total"])
    csv = program.ok("costs", "show", "--for", "2d", "--by", "product", "--bucket", "day", "--csv")
    assert csv.splitlines()[0] == "key,bucket,amount,amountAtMost,gpuHours"
    assert csv.splitlines()[1].startswith("RTX 4090 24GB,20")
    assert program.ok("costs", "--for", "last month") == ""
    zone = "Asia/Kolkata"
    hours = program.run("costs", "--for", "today", "--bucket", "day", "--tz", zone)
    assert re.search(r"^\d{4}-\d\d-\d\d 00:00 IST +inst_", hours.out, re.MULTILINE)
    assert re.search(r"from \d{4}-\d\d-\d\d 00:00 IST to ", hours.err)
    assert program.run("costs", "--for", "someday").code == 2
    line = re.compile(r"^costly +(notBilledYet|over|under|matched)$", re.MULTILINE)

    def reconciled() -> Ran:
        return program.run("costs", "reconcile", "--for", "today", "--columns", "name,state")

    # The next listing of the account begins what the instance costs.
    until(lambda: line.search(reconciled().out) is not None, 60, "the instance has cost something")
    compared = reconciled()
    assert re.search(r"ours \$\d+\.\d+, billed \$", compared.err)


def test_budgets_are_set_and_deleted(program: Program) -> None:
    """`budgets set` creates, and changes the budget with that name; `delete` removes it."""
    made = program.ok("budgets", "set", "b-1", "20", "--period", "day", "--tag", "team=b")
    assert re.fullmatch(
        r"bud_\w+  b-1  \$20\.00 a day  for team=b  then alert  \$20\.00 left\n", made
    )
    changed = json.loads(
        program.ok("budgets", "set", "b-1", "50", "--alert-at", "90,100", "--json")
    )
    assert (changed["amount"], changed["period"], changed["alertAt"]) == (50.0, "day", [90, 100])
    listed = program.ok("budgets", "list", "--columns", "name,left", "--no-header")
    assert re.search(r"^b-1 +\$50\.00$", listed, re.MULTILINE)
    assert program.run("budgets", "delete", "b-1").code == 2
    assert changed["id"] in program.ok("budgets", "delete", "b-1", "--yes")
    assert program.run("budgets", "delete", "b-1", "--yes").code == 3


def test_webhooks_are_managed_from_anywhere(program: Program) -> None:
    """Create shows the secret once, test and deliveries what became of messages."""
    made = program.run("webhooks", "create", "http://127.0.0.1:9/", "--event", "instance.failed")
    assert re.fullmatch(r"whsec_\S+\n", made.out)
    found = re.search(r"whk_\w+", made.err)
    assert found is not None
    listed = program.ok("webhooks", "list", "--columns", "id,events,state", "--no-header")
    assert re.search(rf"^{found[0]} +instance\.failed +on$", listed, re.MULTILINE)
    tested = program.run("webhooks", "test", found[0])
    assert tested.code == 1
    assert tested.out.startswith("not delivered: ")
    assert program.run("webhooks", "deliveries", found[0]).code == 0
    assert found[0] in program.ok("webhooks", "delete", found[0], "--yes")
    assert program.run("webhooks", "test", found[0]).code == 3


def test_what_no_record_pays_for_is_shown(program: Program) -> None:
    """`unmanaged` lists instances that were created elsewhere, with their price."""
    upstream = program.server.emulator.url
    body = {
        "name": "by-hand",
        "productId": "4090.16c62g",
        "gpuNum": 1,
        "rootfsSize": 60,
        "imageUrl": "example.com/image",
        "kind": "gpu",
    }
    made = httpx2.post(
        f"{upstream}/gpu-instance/openapi/v1/gpu/instance/create",
        headers={"Authorization": "Bearer canary-upstream-key-77b1e0"},
        json=body,
        trust_env=False,
    )
    assert made.status_code == 200, made.text
    deadline = time.monotonic() + WITHIN
    while "by-hand" not in (ran := program.run("unmanaged")).out:
        assert time.monotonic() < deadline
        program.server.server.http.post("/api/instances/sync")
    assert re.search(r"by-hand +\w+ +foreign +\$0\.", ran.out)
    assert "POST /api/instances/adopt" in ran.err


def test_ssh_gets_the_address_of_this_moment(program: Program) -> None:
    """OpenSSH gets host, port and user, then `--`, and the command as it was given."""
    instance_id = program.rent("reached")
    env = script(program, "ssh", 'printf "%s\\n" "$@"; exit 7')
    address = served(program, f"/api/instances/{instance_id}")["connectionDetails"]["ssh"]
    port = address.rpartition(":")[2]
    ran = program.process("ssh", "reached", "--", "nvidia-smi", "-L", env=env)
    assert ran.code == 7
    assert ran.out.split("\n")[:-1] == [
        "-p", port, "-l", "root", "--", "127.0.0.1", "nvidia-smi", "-L",
    ]  # fmt: skip
    assert "novitai credentials reached" in ran.err
    shown = json.loads(program.process("ssh", "reached", "--json", env=env).out)
    assert shown["connectionDetails"]["ssh"] == address
    password = served(program, f"/api/instances/{instance_id}/credentials")["sshPassword"]
    assert password not in ran.out + ran.err
    assert password in program.ok("credentials", "reached")
    program.ok("stop", "reached")
    program.ok("wait", "reached", "--for", "stopped")
    stopped = program.run("ssh", "reached")
    assert stopped.code == 5
    assert "novitai start reached" in stopped.err


@pytest.mark.parametrize(
    "address",
    [
        "ssh://-oProxyCommand=id@example.com:22",
        "ssh://root@-oProxyCommand=id:22",
        "ssh://root@example.com:22/-oProxyCommand=id",
        "ssh://root@example.com:x",
        "ssh://root@example.com:99999",
        "ssh://root:secret@example.com:22",
        "ssh://ro%20ot@example.com:22",
        "ssh://root@exa mple.com:22",
        "ssh://root@[fe80::1%25-oX]:22",
        "ssh://root@:22",
        "telnet://root@example.com:22",
        "root@example.com -oProxyCommand=id",
        "ssh://root@example.com:22?x=1",
    ],
)
def test_no_address_is_an_option(address: str) -> None:
    """An address of another form is refused, and never given to ssh."""
    with pytest.raises(CommandFailed, match="not of the form"):
        ssh_target(address)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("ssh://root@203.0.113.7:30122", ("203.0.113.7", 30122, "root")),
        ("ssh://u_1@a-b.example.com", ("a-b.example.com", 22, "u_1")),
        ("ssh://root@[2001:db8::1]:22", ("2001:db8::1", 22, "root")),
    ],
)
def test_plain_addresses_are_read(address: str, expected: tuple[str, int, str]) -> None:
    """Host names, IPv4 and IPv6 addresses, with and without a port."""
    target = ssh_target(address)
    assert (target.host, target.port, target.user) == expected


def test_pages_open_in_the_browser(program: Program) -> None:
    """`open` gives Jupyter's or the terminal's address to the browser, or prints it."""
    instance_id = program.rent("opened")
    addresses = served(program, f"/api/instances/{instance_id}")["connectionDetails"]
    seen = program.folder / "seen"
    env = script(program, "browser", f'printf "%s" "$1" > {seen}')
    ran = program.process("open", "opened", "terminal", env={**env, "BROWSER": "browser %s"})
    assert ran.code == 0
    assert seen.read_text() == addresses["webTerminal"]
    seen.unlink()
    shown = program.process("open", "opened", "--json", env={**env, "BROWSER": "browser %s"})
    assert json.loads(shown.out)["connectionDetails"] == addresses
    assert not seen.exists()
    without = {"BROWSER": "", "DISPLAY": "", "PATH": str(program.folder)}
    assert program.process("open", "opened", env=without).out == f"{addresses['jupyter']}\n"


def test_the_doctor_says_what_to_do(program: Program) -> None:
    """Each check has a line; what is wrong has a remedy."""
    ran = program.run("doctor")
    assert ran.code == 0
    checks = [line[9:23].strip() for line in ran.out.splitlines()]
    assert checks == [
        "versions", "ssh client", "configuration", "server", "reachable", "TLS", "clock", "key",
        "scopes", "server version", "health",
    ]  # fmt: skip
    small = program.run("doctor", env={"NOVITAI_API_KEY": program.server.key("read")})
    assert small.code == 0
    assert "warning  scopes" in small.out
    wrong = program.run("doctor", "--json", env={"NOVITAI_API_KEY": "nvt_wrong"})
    assert wrong.code == 1
    failed = [one for one in json.loads(wrong.out)["checks"] if one["verdict"] == "wrong"]
    assert [one["check"] for one in failed] == ["key"]
    assert "novitai login" in failed[0]["advice"]
    file = program.folder / "config/novitai/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text("[profiles.default]\n")
    file.chmod(0o644)
    readable = program.run("doctor")
    assert f"chmod 600 '{file}'" in readable.out


def test_a_request_can_be_shown_as_a_curl_line(program: Program) -> None:
    """`--curl` sends nothing and shows no key, and its line works when it is pasted."""
    nowhere = {"NOVITAI_URL": "http://127.0.0.1:9"}
    lines = [
        ("GET", ("ls",)),
        ("GET", ("get", "some-name")),
        ("POST", ("stop", "some-name")),
        ("POST", ("keep", "inst_1", "1h")),
        ("PATCH", ("limits", "inst_1", "--max-spend", "20")),
        ("POST", ("stop", "--all")),
        ("DELETE", ("delete", "inst_1")),
        ("POST", ("create", "x", *CREATE, "--env", "A=it's $HOME")),
        ("GET", ("costs", "--csv")),
        ("POST", ("budgets", "set", "x", "5")),
        ("GET", ("events", "-f")),
        ("GET", ("doctor",)),
    ]
    for method, arguments in lines:
        ran = program.run(*arguments, "--curl", env=nowhere)
        assert (ran.code, ran.err) == (0, ""), (arguments, ran)
        words = shlex.split(ran.out)
        assert words[0] == "curl"
        assert ("-X" in words) is (method != "GET"), words
        assert "Authorization: Bearer $NOVITAI_API_KEY" in words
        assert ADMIN_KEY not in ran.out
    for path, arguments in (
        ("/api/instances/inst_1/wait?status=running", ("wait", "inst_1")),
        ("/api/instances/inst_1/events", ("events", "inst_1")),
        ("/api/instances/inst_1/credentials", ("credentials", "inst_1")),
        ("/api/events/stream", ("events", "-f")),
    ):
        assert path in program.ok(*arguments, "--curl", env=nowhere)
    line = program.ok("create", "by-curl", *CREATE, "--env", "A=it's $HOME", "--curl")
    assert program.run("get", "by-curl").code == 3
    environment = {"NOVITAI_API_KEY": ADMIN_KEY, "PATH": os.environ["PATH"]}
    sent = subprocess.run(
        ["sh", "-c", line], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(sent.stdout)["instanceId"].startswith("inst_")
    assert program.run("get", "by-curl").code == 0

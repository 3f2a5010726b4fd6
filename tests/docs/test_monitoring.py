# SPDX-License-Identifier: Apache-2.0
"""The dashboard and the alerts use metrics that a server has, in expressions that parse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from tests.docs.pages import ROOT, page, section
from tests.live import live
from tests.services import unavailable

ALERTS = ROOT / "deploy/prometheus/alerts.yml"
DASHBOARD = ROOT / "deploy/grafana/novitai.json"


def alerts() -> list[dict[str, Any]]:
    """Return the alerts."""
    [group] = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def panels() -> list[dict[str, Any]]:
    """Return the panels and the rows of the dashboard."""
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return found


def expressions() -> list[str]:
    """Return the expressions of both files."""
    shown = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    return shown + [rule["expr"] for rule in alerts()]


def selectors(expression: str) -> Iterator[promql_parser.VectorSelector]:
    """Return the selectors of an expression."""
    found: list[promql_parser.VectorSelector] = []

    def note(node: object) -> bool:
        if isinstance(node, promql_parser.VectorSelector):
            found.append(node)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.append(node.vector_selector)
        return True

    promql_parser.walk(promql_parser.parse(expression), note)
    yield from found


@pytest.fixture(scope="module")
def scrape(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Return the names of the samples that a server may have, by its families."""
    folder = tmp_path_factory.mktemp("live")
    with live(f"sqlite:///{folder}/novitai.db", folder) as server:
        server.run(server.app.fleet_count.once())
        text = server.http.get("/metrics", headers={"Accept": "text/plain"}).text
    names: set[str] = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE):
        suffixes = {"histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}
        names |= {name + suffix for suffix in suffixes.get(kind, ("",))}
    return names


def test_every_metric_of_an_expression_exists(scrape: set[str]) -> None:
    """Each expression parses, and a live scrape has each metric that it selects."""
    used = {str(one.name) for expression in expressions() for one in selectors(expression)}
    assert len(used) > 30
    assert not used - scrape


def test_every_metric_that_is_demanded_is_shown() -> None:
    """The dashboard has the rows that an operator looks for, and a panel for each figure."""
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Money", "Fleet", "Creates", "Upstream", "Webhooks", "Process"]
    assert all(panel["targets"] for panel in panels() if panel["type"] != "row")
    assert len({panel["id"] for panel in panels()}) == len(panels())


def test_every_alert_says_what_to_do() -> None:
    """Each alert has a severity, a summary and a description, and the guide explains it."""
    told = page("how-to/watch-with-prometheus.md")
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"]["summary"]
        assert len(rule["annotations"]["description"]) > 80
        assert f"`{rule['alert']}`" in told


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    """The runbook has the alerts of the file in its order, and each alert names its entry."""
    entries = re.findall(r"^## (.+)$", page("how-to/runbook.md"), re.MULTILINE)
    assert entries == [rule["alert"] for rule in alerts()]
    for rule in alerts():
        link = f"docs/how-to/runbook.md#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook"] == link
        entry = section(page("how-to/runbook.md"), rule["alert"])
        parts = re.findall(r"^\*\*(\w+)\.\*\*", entry, re.MULTILINE)
        assert parts == ["Meaning", "Look", "Do"], rule["alert"]


def test_prometheus_takes_the_rules() -> None:
    """`promtool check rules` passes."""
    promtool = shutil.which("promtool")
    if promtool is None:
        unavailable("promtool is not on the PATH (Debian's package: prometheus)")
    checked = subprocess.run(
        [promtool, "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(alerts())} rules found" in checked.stdout


def test_the_paths_of_the_guide_exist() -> None:
    """The guide names the two files."""
    told = page("how-to/watch-with-prometheus.md")
    for path in (ALERTS, DASHBOARD):
        assert str(Path(path).relative_to(ROOT)) in told

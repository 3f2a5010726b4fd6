# SPDX-License-Identifier: Apache-2.0
"""The CPU time of reconciling an account with 10,000 instances.

The yardstick is parsing the JSON of the same listing once, which every reconciliation needs.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import orjson
from sqlalchemy import Connection

from benchmarks.bench import Bench
from benchmarks.report import Line, against
from benchmarks.stores import SQLITE
from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.lifecycle.account import Account
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.maintenance.clock_watch import ClockWatch
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.lifecycle.reconcile.apply import Applier
from novitai.lifecycle.reconcile.loop import Sync
from novitai.settings import FailedInstancePolicy, OrphanPolicy
from novitai.store.opening import open_database
from novitai.store.queries import instances
from novitai.store.vault import Vault
from novitai.testing import an_instance
from novitai.upstream import reading
from novitai.upstream.client import NovitaClient
from novitai.upstream.models import Listing, UpstreamInstance

_PAGE: Final = 1_000


def run(bench: Bench) -> Iterator[Line]:
    """Measure a reconciliation without changes, and one in which every instance has changed."""
    many = bench.scale.account
    rounds = []
    for _ in range(bench.scale.few_rounds):
        with bench.house() as house:
            rounds.append(asyncio.run(_measure(house.folder, many)))
    same, changed, parsing = (
        statistics.median(each[place] for each in rounds) for place in range(3)
    )
    for measure, figure in (("none changed", same), ("all changed", changed)):
        yield against(
            "sync",
            f"{many:,} instances, {measure}",
            SQLITE,
            figure,
            parsing,
            "ms CPU",
            rounds=len(rounds),
        )


class _Account(NovitaClient):
    """A client that reads the account from JSON in memory instead of from Novita."""

    def __init__(self, pages: list[bytes]) -> None:
        self.pages = pages
        self.port = 1

    async def list_instances(self) -> Listing:
        """Return the listing of the account."""
        began_at = SystemClock().now()
        rows: list[UpstreamInstance] = []
        for page in self.pages:
            for row in orjson.loads(page)["instances"]:
                row["portMappings"][0]["endpoint"] = f"127.0.0.1:{self.port}"
                read = reading.instance(row)
                if read is not None:
                    rows.append(read)
        return Listing(began_at, tuple(rows), complete=True, total=len(rows))


async def _measure(folder: Path, many: int) -> tuple[float, float, float]:
    clock, ids = SystemClock(), Ids()
    database = await open_database(f"sqlite:///{folder / 'novitai.db'}", clock)
    try:
        await database.write(partial(fill, many=many))
        account = _Account(_pages(many))
        engine = EmbeddedEngine(database, clock, ids)
        vault = Vault(b"a secret for the benchmark alone")
        recorder = Recorder(clock, ids, Outbox(clock, ids, engine))
        core = Core(database, vault, clock, ids, engine, recorder)
        follow_ups = FollowUps(core, FailedInstancePolicy.STOP)
        reviews = LimitReviews(core, follow_ups)
        sync = Sync(
            core,
            account,
            Applier(core, follow_ups, LateCalls(core), reviews, call_timeout=15),
            Account(core, OrphanPolicy.REPORT),
            holder="benchmark",
            installation_ids=("abcdef",),
            interval=5,
            absent_after=180,
            call_timeout=15,
            steady=ClockWatch(database, clock, placement_deadline=900, jumped=lambda: None).look,
        )
        await sync.once()
        began = time.process_time()
        for page in account.pages:
            orjson.loads(page)
        parsing = time.process_time() - began
        await asyncio.sleep(0.01)
        began = time.process_time()
        await sync.once()
        same = time.process_time() - began
        await asyncio.sleep(0.01)
        account.port = 2
        began = time.process_time()
        await sync.once()
        changed = time.process_time() - began
    finally:
        await database.close()
    return same * 1000, changed * 1000, parsing * 1000


def fill(connection: Connection, many: int) -> None:
    """Insert running instances."""
    for number in range(many):
        one = an_instance(id=f"inst_{number}", upstream_id=None)
        instances.insert(connection, one, b"sealed")
        instances.update_columns(
            connection, one.id, {"upstream_id": f"{number:016x}", "ready_at": 1, "confirmed_at": 1}
        )


def _pages(many: int) -> list[bytes]:
    rows = [
        {
            "id": f"{number:016x}",
            "name": f"box-{number}",
            "status": "running",
            "clusterId": "us-ca-6",
            "productId": "gpu-basic.8c32g",
            "productName": "gpu-basic",
            "gpuNum": "1",
            "rootfsSize": 60,
            "imageUrl": "image",
            "portMappings": [{"port": 8080, "endpoint": "", "type": "tcp"}],
            "connectComponentSSH": {
                "sshCommand": "ssh -p 22 root@127.0.0.1",
                "password": f"password-{number}",
                "isRunning": True,
            },
            "billingMode": "onDemand",
            "endTime": "-1",
        }
        for number in range(many)
    ]
    return [
        orjson.dumps({"instances": rows[start : start + _PAGE], "total": str(many)})
        for start in range(0, many, _PAGE)
    ]

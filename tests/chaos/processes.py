# SPDX-License-Identifier: Apache-2.0
"""Real processes under load: one after the other is killed, stopped, ended or made to crash.

On SQLite that is one `novitai serve`; on PostgreSQL two API and three worker processes, whose
server loses its connections and restarts too. Clients repeat each request with its key until it is
answered, and wait until what was accepted is true.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import secrets
import shutil
import signal
import sqlite3
import statistics
import subprocess
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2
import psycopg

from novitai.crash_points import CrashPoint
from novitai.domain.marker import without_marker
from novitai.lifecycle.operations.steps import LEASE_SECONDS
from tests.blackbox.harness import ADMIN_KEY, REQUEST, Emulator, Process, Sandbox
from tests.chaos.receiver import Receiver
from tests.chaos.recovery import Watch
from tests.old_release import run_release, unpacked
from tests.services import RestartableServer

CLIENTS: Final = 6
GOAL_WITHIN: Final = 240.0
"""Seconds from an answer, and from the last disturbance, until what was accepted must be true."""
RECOVERED_WITHIN: Final = 10.0
"""Seconds from a disturbance until the API answers and all work goes on, as promised."""
BEYOND_THE_LEASE: Final = (LEASE_SECONDS + 1, LEASE_SECONDS + 4)
LISTING: Final = "/gpu/instances"
LISTING_SECONDS: Final = 0.2
"""How long a listing takes, so that two processes which list at once are seen."""
_FENCED: Final = re.compile(r"\bfenced\b")
"""The event of a refused write in the log of a process."""
_READ_EVERY: Final = 2.0
_EXCUSED: Final = 10.0
"""Seconds after a process went on or was asked to end, in which its call may meet another's."""
_CRASH_WITHIN: Final = 12.0
_UP_WITHIN: Final = 60.0
_OTHERS: Final = 3
"""Instances that run all the time. With fewer of them, an absence is doubted for ten minutes, so
that a delete whose answer was lost takes as long."""
_STRANGERS: Final = ("theirs-1", "theirs-2")
_ONLY_IN_MODEL: Final = frozenset(
    {
        CrashPoint.STRAY_DELETING,
        CrashPoint.STRAY_DELETED,
        CrashPoint.LATE_CALL_NOTING,
        CrashPoint.LATE_CALL_NOTED,
    }
)
"""They need an upstream that misbehaves, or a process that stalls at one moment."""
_DONE: Final = {"start": "running", "stop": "stopped", "restart": "running"}


@dataclass
class Goal:
    """Something that was accepted, and the time at which it was seen to be true."""

    instance_id: str
    wanted: str
    accepted_at: float
    reached_at: float | None = None


@dataclass
class Report:
    """The findings of the clients and of the checks.

    Attributes:
        disturbed: How often each kind of disturbance happened.
        points: The crash points at which a process ended.
        recoveries: Seconds from each disturbance until the API answered and all work that was due
            or under way was taken up again.
        all_true: Seconds from each disturbance until all that was accepted before it was true.
        fenced: How many writes of processes that had lost their lease were refused.
        listings: How many times the account was listed, by one process at a time.
        late_listings: How many of them met the call of a process that had been frozen before it,
            or that had given it up because it was asked to end.
        problems: The broken promises.
    """

    disturbed: Counter[str] = field(default_factory=Counter)
    points: Counter[str] = field(default_factory=Counter)
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    all_true: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    fenced: int = 0
    listings: int = 0
    late_listings: int = 0
    goals: list[Goal] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    lives: int = 0

    def table(self) -> str:
        """Render what was run and found."""
        heading = f"{'disturbance':22} {'runs':>5} {'recovery p50':>13} {'max':>7} {'> 10 s':>7} "
        lines = [heading + f"{'all true p50':>13} {'max':>7}"]
        for name in sorted(self.disturbed):
            took = self.recoveries.get(name) or [math.nan]
            ended = self.all_true.get(name) or [math.nan]
            late = sum(one > RECOVERED_WITHIN for one in took)
            lines.append(
                f"{name:22} {self.disturbed[name]:5} "
                f"{statistics.median(took):12.1f}s {max(took):6.1f}s {late:7} "
                f"{statistics.median(ended):12.1f}s {max(ended):6.1f}s"
            )
        lost = sum(goal.reached_at is None for goal in self.goals)
        total = (
            f"{sum(self.disturbed.values())} runs, {self.lives} instances, {len(self.goals)} "
            f"accepted requests, {lost} lost, {len(self.problems)} broken promises, "
            f"{self.fenced} late writes refused, {self.listings} listings of the account, "
            f"{self.late_listings} late ones"
        )
        points = ", ".join(f"{one} {count}" for one, count in sorted(self.points.items()))
        lines += [total, f"crash points: {points}", *self.problems]
        return "\n".join(lines)


class Clients:
    """Threads that create instances, act on them, delete them, and note what was accepted."""

    def __init__(self, urls: Callable[[], Sequence[str]], report: Report, receiver: str) -> None:
        self._urls = urls
        self._report = report
        self._receiver = receiver
        self._ending = threading.Event()
        self._quiet_since: float | None = None
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._live, daemon=True) for _ in range(CLIENTS)]
        self.restarts: Counter[str] = Counter()
        self.ids: dict[str, str] = {}
        self.others: list[str] = []

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def rent(self) -> None:
        """Create the instances that run all the time, and wait until they do."""
        with self._client() as http:
            for number in range(_OTHERS):
                body = {**REQUEST, "name": f"other-{number}", "templateId": "107802"}
                made = self._ask(http, "POST", "/api/instances", body)
                if made is not None:
                    self._wait(http, made["instanceId"], "running")
                    self.others.append(made["instanceId"])

    def look_at_others(self) -> None:
        """Check that the instances that run all the time still do."""
        with self._client() as http:
            for instance_id in self.others:
                self._wait(http, instance_id, "running")

    def end(self) -> None:
        """Begin no more lives, and wait until all that have begun are over."""
        self._quiet_since = time.monotonic()
        self._ending.set()
        for thread in self._threads:
            thread.join()

    def _live(self) -> None:
        chance = random.Random(secrets.randbits(32))
        with self._client() as http:
            while not self._ending.is_set():
                try:
                    self._one_life(http, chance)
                except Exception as error:  # any failure of a client is a finding
                    self._problem(f"a client failed: {type(error).__name__}: {error}")

    @staticmethod
    def _client() -> httpx2.Client:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx2.Client(headers=headers, trust_env=False, timeout=20)

    def _one_life(self, http: httpx2.Client, chance: random.Random) -> None:
        with self._lock:
            name = f"chaos-{next(self._numbers)}"
        body = {**REQUEST, "name": name, "templateId": "107802"}
        made = self._ask(http, "POST", "/api/instances", body | {"webhookUrl": self._receiver})
        if made is None:
            return
        instance_id = made["instanceId"]
        self.ids[instance_id] = name
        if chance.random() < 0.8:
            self._wait(http, instance_id, "running")
            for verb in chance.choice([(), ("restart",), ("stop",), ("stop", "start")]):
                if self._ask(http, "POST", f"/api/instances/{instance_id}/{verb}", None) is None:
                    break
                self.restarts[instance_id] += verb == "restart"
                self._wait(http, instance_id, _DONE[verb])
        if self._ask(http, "DELETE", f"/api/instances/{instance_id}", None) is not None:
            self._wait(http, instance_id, "terminated")
        self._report.lives += 1

    def _ask(self, http: httpx2.Client, method: str, path: str, body: Any) -> dict[str, Any] | None:
        """Send a request until it is answered, always with the same key."""
        key = {"Idempotency-Key": secrets.token_hex(12)}
        while True:
            answer = self._send(http, method, path, json=body, headers=key)
            if answer is not None and answer.status_code < 300:
                found: dict[str, Any] = answer.json()
                return found
            if answer is not None and answer.status_code < 500 and answer.status_code != 429:
                code = answer.json()["error"]["code"]
                if code == "IDEMPOTENCY_IN_PROGRESS":
                    continue
                self._problem(f"{method} {path} was refused: {answer.text}")
                return None
            time.sleep(0.2)

    def _wait(self, http: httpx2.Client, instance_id: str, wanted: str) -> None:
        goal = Goal(instance_id, wanted, time.monotonic())
        self._report.goals.append(goal)
        while self._in_time(goal):
            answer = self._send(http, "GET", f"/api/instances/{instance_id}")
            if answer is not None and answer.status_code == 200:
                view = answer.json()
                if view["status"] == wanted and "operation" not in view:
                    goal.reached_at = time.monotonic()
                    return
                if view["status"] in {"failed", "terminated"}:
                    self._problem(f"{instance_id} is not {wanted}, but {view}")
                    return
            elif answer is not None and answer.status_code == 404:
                self._problem(f"{instance_id} was acknowledged and is lost")
                return
            time.sleep(0.25)
        self._problem(f"{instance_id} did not become {wanted} within {GOAL_WITHIN:g} s")

    def _in_time(self, goal: Goal) -> bool:
        """Whether a goal may still be reached; while processes are disturbed, it may take long."""
        quiet = self._quiet_since
        return quiet is None or time.monotonic() - max(goal.accepted_at, quiet) < GOAL_WITHIN

    def _send(
        self, http: httpx2.Client, method: str, path: str, **more: Any
    ) -> httpx2.Response | None:
        """Send a request to a process; None if it did not answer."""
        urls = self._urls()
        if not urls:
            time.sleep(0.2)
            return None
        with suppress(httpx2.HTTPError):
            return http.request(method, random.choice(urls) + path, **more)
        return None

    def _problem(self, text: str) -> None:
        with self._lock:
            self._report.problems.append(text)


@dataclass(eq=False)
class Place:
    """A process of the arena, and what replaces it when it ends."""

    arguments: list[str]
    serves: bool
    process: Process
    release: Path | None = None
    url: str | None = None
    frozen_until: float | None = None


class Arena:
    """The processes, their disturbances and the checks."""

    def __init__(
        self,
        sandbox: Sandbox,
        emulator: Emulator,
        seed: int,
        server: RestartableServer | None,
        old_release: Path | None,
    ) -> None:
        self.sandbox = sandbox
        self.emulator = emulator
        self.server = server
        self.chance = random.Random(seed)
        self.report = Report()
        self.places: list[Place] = []
        self.watch = Watch(self._connect, self.urls)
        self._old_release = old_release
        self._posts: list[dict[str, Any]] = []
        self._read_to = 0
        self._read_next = 0.0
        self._listed_until = 0.0
        self._excuses: list[float] = []
        self._pending: list[tuple[str, float, list[Goal]]] = []
        self._points = itertools.cycle(
            self.chance.sample(
                sorted(set(CrashPoint) - _ONLY_IN_MODEL), len(CrashPoint) - len(_ONLY_IN_MODEL)
            )
        )

    def open(self) -> None:
        """Start all processes."""
        if self.server is None:
            self._add(["serve", "--port", "0"], serves=True)
            return
        migrated = self.sandbox.ended("migrate")
        if migrated.code != 0:
            raise RuntimeError(migrated.err)
        for number in range(2):
            self._add(["api", "--port", "0"], serves=True, old=number == 0)
        for number in range(3):
            self._add(["worker"], serves=False, old=number == 0)

    def urls(self) -> list[str]:
        """Return the URLs of the processes that serve, as far as they are known."""
        return [one.url for one in self.places if one.url]

    def any_kind(self) -> str:
        """Choose a kind of disturbance."""
        kinds = {"kill -9": 3, "crash point": 5, "SIGTERM": 1, "SIGSTOP": 2}
        if self.server is not None:
            kinds |= {"connections ended": 1, "PostgreSQL restarted": 1, "PostgreSQL crashed": 1}
        return self.chance.choices(list(kinds), list(kinds.values()))[0]

    def disturb(self, kind: str) -> str:
        """Disturb one process or the database server; return the kind as it was carried out."""
        if self.server is None:
            self._until_up(self.places[0])
            time.sleep(self.chance.uniform(0, 2))
        able = [one for one in self.places if one.frozen_until is None]
        frozen = len(self.places) - len(able)
        if kind == "SIGSTOP" and (frozen > 1 or (self.server is not None and not able)):
            kind = "kill -9"
        began = time.monotonic()
        waiting = [goal for goal in self.report.goals if goal.reached_at is None]
        if self.server is not None and kind.startswith(("conn", "Postgre")):
            self._disturb_server(self.server, kind)
            self.watch.strike(kind)
        else:
            self._disturb_place(self.chance.choice(able or self.places), kind)
        self.report.disturbed[kind] += 1
        self._pending.append((kind, began, waiting))
        return kind

    def look(self) -> None:
        """Thaw what was frozen long enough, replace what has ended, and check the account."""
        now = time.monotonic()
        for place in self.places:
            if place.frozen_until is not None and now >= place.frozen_until:
                self._thaw(place)
            if place.process.code is not None:
                # One that could not start, as the database was down, is started again.
                if self._note_point(place.process):
                    self.watch.strike("crash point")
                self._start(place)
            if place.serves and place.url is None:
                found = re.search(r"listening on (http://\S+)\n", place.process.out)
                place.url = found and found[1]
        for kind, began, goals in list(self._pending):
            if all(goal.reached_at is not None for goal in goals):
                self._pending.remove((kind, began, goals))
                ended = [goal.reached_at for goal in goals if goal.reached_at is not None]
                self.report.all_true[kind].append(max(0.0, max(ended, default=began) - began))
        self._check_account()
        if now >= self._read_next:
            self._read_calls()
            self._read_next = now + _READ_EVERY

    def _read_calls(self) -> None:
        """Read the calls that have come in, before the emulator's log drops them."""
        found = self.emulator.call("GET", f"/calls?limit=20000&after={self._read_to}")["calls"]
        for call in found:
            if call["status"] is None and call["method"] == "GET":
                return  # read it again once it has ended
            self._read_to = call["seq"]
            if call["method"] == "POST":
                self._posts.append(call)
            elif call["path"] == LISTING and "name" not in call["query"]:
                self._note_listing(call["at"], call["at"] + call["durationMs"] / 1000)

    def _note_listing(self, began: float, ended: float) -> None:
        """Check that one process lists at a time; times are Unix seconds."""
        if began < self._listed_until:
            # A process that was frozen just before its call sends it once it goes on. And one that
            # is asked to end gives up its call and the lease, while the call still goes on here.
            excused = any(0 <= began - at < _EXCUSED for at in self._excuses)
            self.report.late_listings += excused
            self._insist(excused, f"two processes listed the account at once, at {began}")
        self._listed_until = max(self._listed_until, ended)
        self.report.listings += 1

    def conclude(self, clients: Clients, receiver: Receiver) -> None:
        """Check what must hold once all lives are over."""
        for place in self.places:
            if place.frozen_until is not None:
                place.process.send(signal.SIGCONT)
        rows = self.emulator.call("GET", "/instances")["instances"]
        ours = [row for row in rows if row["name"] not in _STRANGERS]
        living = sorted(without_marker(row["name"]) for row in ours if row["live"])
        wanted = [f"other-{number}" for number in range(_OTHERS)]
        self._insist(living == wanted, f"{living} bill, and {wanted} are wanted")
        for row in rows:
            if row["name"] in _STRANGERS:
                self._insist(row["live"] and row["status"] == "running", f"touched: {row}")
        self._read_calls()
        calls = self._posts
        names = Counter(
            call["body"]["name"] for call in calls if call["path"] == "/gpu/instance/create"
        )
        twice = [name for name, count in names.items() if count > 1]
        self._insist(not twice, f"sent twice: {twice}")
        known = {row["id"] for row in ours}
        for call in calls:
            target = (call["body"] or {}).get("instanceId")
            self._insist(target is None or target in known, f"a call to a stranger: {call}")
        owners = {row["id"]: without_marker(row["name"]) for row in ours}
        restarted = Counter(
            owners.get(call["body"]["instanceId"])
            for call in calls
            if call["path"] == "/gpu/instance/restart"
        )
        for instance_id, name in clients.ids.items():
            asked = clients.restarts[instance_id]
            self._insist(restarted[name] <= asked, f"{name} was restarted {restarted[name]} times")
        self._check_messages(clients, receiver)
        for strike in self.watch.end(_UP_WITHIN):
            self._insist(False, f"work lies still after {strike.kind}: {strike.waiting}")
        for kind, seconds in self.watch.took:
            self.report.recoveries[kind].append(seconds)
        said = (one.out + one.err for one in self.sandbox.processes)
        self.report.fenced = sum(len(_FENCED.findall(one)) for one in said)

    def _check_messages(self, clients: Clients, receiver: Receiver) -> None:
        url = self._any_url()
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        with httpx2.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as http:
            for instance_id in clients.ids:
                path = f"/api/instances/{instance_id}/deliveries"
                deadline = time.monotonic() + GOAL_WITHIN
                while True:
                    found = http.get(path).json()["deliveries"]
                    if all(one["status"] == "delivered" for one in found):
                        break
                    if time.monotonic() > deadline:
                        self._insist(False, f"{instance_id}: not all delivered: {found}")
                        break
                    time.sleep(0.5)
                wanted = [one["id"] for one in found]
                got = [one for one in receiver.got if one in set(wanted)]
                # A process that stalls may send a message again late; the first arrivals count.
                first = list(dict.fromkeys(got))
                self._insist(
                    first == wanted or first == wanted[::-1],
                    f"{instance_id}: messages out of order: {got}, not {wanted}",
                )

    def _any_url(self) -> str:
        while True:
            self.look()
            if urls := self.urls():
                return urls[0]
            time.sleep(0.2)

    def _check_account(self) -> None:
        living: Counter[str] = Counter()
        for row in self.emulator.call("GET", "/instances")["instances"]:
            gone = row["status"] in {"toRemove", "removing", "removed"}
            if row["live"] and not gone and row["name"] not in _STRANGERS:
                living[without_marker(row["name"])] += 1
        doubles = [name for name, count in living.items() if count > 1]
        self._insist(not doubles, f"two live instances for one record: {doubles}")

    def _insist(self, holds: bool, problem: str) -> None:
        if not holds and problem not in self.report.problems:
            self.report.problems.append(problem)

    def _until_up(self, place: Place) -> None:
        """Wait until a process works, so that it has something to lose."""
        deadline = time.monotonic() + _UP_WITHIN
        while time.monotonic() < deadline:
            self.look()
            if place.url or "novitai: working" in place.process.out:
                return
            time.sleep(0.1)

    def _disturb_place(self, place: Place, kind: str) -> None:
        if place.frozen_until is not None:
            self._thaw(place)
        if kind == "SIGSTOP":
            place.process.send(signal.SIGSTOP)
            place.frozen_until = time.monotonic() + self.chance.uniform(*BEYOND_THE_LEASE)
            if self.server is not None:
                self.watch.strike(kind)
            return
        if kind == "kill -9":
            place.process.kill()
            self.watch.strike(kind)
            self._start(place)
            return
        place.process.send(signal.SIGTERM)
        self._excuses.append(time.time())
        with suppress(subprocess.TimeoutExpired):
            place.process.wait(15)
        place.process.kill()
        if kind == "SIGTERM":
            self.watch.strike(kind)
            self._start(place)
            return
        point = next(self._points)
        nth = self.chance.choice([1, 1, 1, 2, 3, 5])
        self._start(place, crash_at=f"{point.value}:{nth}")
        crashing = place.process
        self._until_up(place)
        deadline = time.monotonic() + _CRASH_WITHIN
        while time.monotonic() < deadline and crashing.code is None:
            self.look()
            time.sleep(0.1)
        if crashing.code is None:
            crashing.kill()
            self.watch.strike(kind)
            self._start(place)

    def _thaw(self, place: Place) -> None:
        place.process.send(signal.SIGCONT)
        place.frozen_until = None
        self._excuses.append(time.time())
        if self.server is None:
            # Alone, nothing goes on before that.
            self.watch.strike("SIGSTOP")

    def _disturb_server(self, server: RestartableServer, kind: str) -> None:
        if kind == "connections ended":
            with psycopg.connect(server.url, autocommit=True) as admin:
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            return
        server.restart("fast" if kind == "PostgreSQL restarted" else "immediate")

    def _note_point(self, process: Process) -> bool:
        """Count the crash point at which a process ended; return whether it did."""
        said = process.err.partition("crash point reached: ")[2].split("\n")[0].split()
        if said:
            self.report.points[said[0]] += 1
        return bool(said)

    def _add(self, arguments: list[str], *, serves: bool, old: bool = False) -> None:
        release = self._old_release if old else None
        self.places.append(Place(arguments, serves, self._run(arguments, release), release))

    def _start(self, place: Place, crash_at: str = "") -> None:
        place.url = None
        settings = {}
        if crash_at:
            settings = {"NOVITAI_TEST_ALLOW_CRASHES": "true", "NOVITAI_TEST_CRASH_AT": crash_at}
        place.process = self._run(place.arguments, place.release, **settings)

    def _run(self, arguments: list[str], release: Path | None, **settings: str) -> Process:
        if release is None:
            return self.sandbox.run(*arguments, **settings)
        return run_release(self.sandbox, release, *arguments, **settings)

    def _connect(self) -> Any:
        """Open a connection that reads the database, past any pooler."""
        if self.server is not None:
            return psycopg.connect(self.server.url, autocommit=True, connect_timeout=2)
        file = self.sandbox.data / "novitai.db"
        return sqlite3.connect(f"file:{file}?mode=ro", uri=True, isolation_level=None)


def run(
    runs: int,
    *,
    seed: int,
    kinds: Sequence[str] = (),
    server: RestartableServer | None = None,
    pooler_url: str = "",
    redis_url: str = "",
    upgrading: bool = False,
    every: tuple[float, float] = (0.0, 1.0),
    tell: Callable[[str], None] = lambda _line: None,
) -> Report:
    """Disturb a number of times under load, then let all lives end and check what must hold.

    The folder with the logs and, on SQLite, the database is kept if a promise was broken.

    Args:
        runs: How many disturbances.
        seed: The source of the choices.
        kinds: The kinds of the disturbances, in turn; by default they are chosen at random.
        server: The PostgreSQL server; without it, one process works on SQLite.
        pooler_url: The server's database through PgBouncer in transaction mode.
        redis_url: The Redis server; none if empty.
        upgrading: One API process and one worker are of the release before.
        every: The shortest and longest pause after a disturbance, in seconds.
        tell: Called with a line for each disturbance.
    """
    folder = Path(tempfile.mkdtemp(prefix="novitai-chaos-"))
    with prepared(folder, redis_url) as (receiver, sandbox, emulator):
        sandbox.env["NOVITAI_ABSENT_AFTER_SECONDS"] = "5"
        if server is not None:
            sandbox.env["NOVITAI_DATABASE_URL"] = pooler_url or server.url
            sandbox.env["NOVITAI_DATABASE_DIRECT_URL"] = server.url if pooler_url else ""
        # A restart that no listing shows is waited for a minute.
        emulator.call("PATCH", "/settings", {"delays": {"restarting": [600, 900]}})
        emulator.call("POST", "/seed", {"names": list(_STRANGERS)})
        emulator.fault(kind="call", path=LISTING, method="GET", latencySeconds=LISTING_SECONDS)
        release = unpacked(folder) if upgrading else None
        arena = Arena(sandbox, emulator, seed, server, release)
        arena.open()
        clients = Clients(arena.urls, arena.report, receiver.url)
        driving(arena, clients.rent)
        clients.start()
        arena.watch.start()
        for number in range(runs):
            kind = arena.disturb(kinds[number % len(kinds)] if kinds else arena.any_kind())
            until = time.monotonic() + arena.chance.uniform(*every)
            while time.monotonic() < until:
                arena.look()
                time.sleep(0.2)
            tell(f"{number + 1}: {kind}; {len(arena.report.problems)} broken promises")
        driving(arena, clients.end)
        driving(arena, clients.look_at_others)
        arena.conclude(clients, receiver)
    if arena.report.problems:
        arena.report.problems.append(f"logs and data are kept in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    return arena.report


@contextmanager
def prepared(folder: Path, redis_url: str) -> Iterator[tuple[Receiver, Sandbox, Emulator]]:
    """Prepare a receiver, an emulator and the settings of the processes; end all of them."""
    with ExitStack() as stack:
        receiver = stack.enter_context(Receiver.listening())
        sandbox = Sandbox(folder)
        stack.callback(kill_all, sandbox)
        sandbox.env |= {"NOVITAI_WEBHOOK_ALLOW_PRIVATE": "true", "NOVITAI_REDIS_URL": redis_url}
        emulator = sandbox.emulator(speed=300)
        stack.callback(emulator.close)
        yield receiver, sandbox, emulator


def driving(arena: Arena, work: Callable[[], None]) -> None:
    """Do something in another thread, and look after the processes meanwhile."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    while thread.is_alive():
        arena.look()
        time.sleep(0.2)
    arena.look()


def kill_all(sandbox: Sandbox) -> None:
    """End all processes, frozen ones too."""
    for process in sandbox.processes:
        with suppress(OSError, subprocess.TimeoutExpired):
            process.send(signal.SIGCONT)
            process.kill()

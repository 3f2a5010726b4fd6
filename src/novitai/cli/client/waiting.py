# SPDX-License-Identifier: Apache-2.0
"""`novitai wait`, and the end of `novitai create --wait`: each status as it comes, with times."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

import typer

from novitai.cli.client.instances import InstanceName, stops
from novitai.cli.client.invocation import Invocation, command
from novitai.cli.client.lookup import find_id, find_instance
from novitai.cli.client.tables import console, show_json
from novitai.cli.client.wording import clean, duration, hourly, word
from novitai.cli.output import note

if TYPE_CHECKING:
    from rich.text import Text

    from novitai.cli.client.profiles import ServerAccess
    from novitai_client.models.instances import Instance

READY_WITHIN: Final = "15m"
LONGEST_REQUEST: Final = 50.0
"""Seconds that one request waits; `wait` sends as many as it needs."""
_FRAMES_PER_SECOND: Final = 8
_CLOSED_WITHIN: Final = 2.0
"""Seconds in which the connection of the event stream is closed; else it ends with the process."""

app = typer.Typer()

Within = Annotated[
    str,
    typer.Option("--timeout", metavar="DURATION", help="When the wait is given up: 90s, 15m, 1h."),
]


@command(app, "wait", schema="Instance", example="novitai wait trainer --for running --timeout 10m")
def wait(
    invocation: Invocation,
    name: InstanceName,
    status: Annotated[
        str, typer.Option("--for", metavar="STATUS", help="The status to wait for.")
    ] = "running",
    timeout: Within = READY_WITHIN,
) -> None:
    """Wait until an instance has a status; show each status on the way.

    Exit code 8: the time is over, and the instance lives on. 9: the status cannot come any more.
    """
    seconds = duration(timeout, "--timeout").total_seconds()
    if invocation.curl:
        terms = {"status": status, "timeout": round(min(seconds, LONGEST_REQUEST))}
        path = f"/api/instances/{find_id(invocation, name)}/wait"
        invocation.client.request("GET", path, query=terms)
    instance = find_instance(invocation, name)
    invocation.name_server()
    shown = wait_for(invocation, instance, status, seconds)
    invocation.result(shown, ready_line(shown))


def ready_line(instance: Instance) -> str:
    """Return the line about an instance that has the status that was waited for."""
    price = "" if instance.hourly_price is None else f", {hourly(instance.hourly_price)}"
    end = "" if instance.stops_at is None else f", stops {stops(instance)}"
    return f"{instance.id}  {instance.name}  {instance.status}  {instance.region}{price}{end}"


def wait_for(invocation: Invocation, instance: Instance, status: str, seconds: float) -> Instance:
    """Wait until an instance has a status, and show the way there.

    Raises:
        novitai_client.WaitTimedOut: the time is over.
        novitai_client.StatusOutOfReach: the status cannot come.
    """
    price = "" if instance.hourly_price is None else f" at {hourly(instance.hourly_price)}"
    lives_on = f"{instance.name} ({instance.id}) lives on{price}"
    invocation.action = f"{lives_on}: `novitai delete {instance.id}` deletes it."
    progress = _Progress(instance, status)
    from novitai_client.errors import NovitaiError

    with contextlib.nullcontext() if invocation.as_json else _shown(invocation, instance, progress):
        try:
            reached = invocation.client.instances.wait(instance.id, word(status), timeout=seconds)
        except NovitaiError as error:
            if invocation.as_json:
                # A script needs the ID of what may be billed, however the wait ends.
                show_json(error.instance or instance, line=True)
            raise
        if not invocation.as_json:
            progress.add(reached.status)
    return reached


@contextlib.contextmanager
def _shown(invocation: Invocation, instance: Instance, progress: _Progress) -> Iterator[None]:
    """Show the statuses of an instance: one line each, or a progress line on a terminal."""
    progress.add(instance.status)
    follower = _Follower(invocation.server, instance.id, progress)
    follower.start()
    try:
        with progress.on_terminal() if sys.stderr.isatty() else contextlib.nullcontext():
            yield
    finally:
        progress.end()
        follower.end()


class _Progress:
    """The statuses so far, and how long they took."""

    def __init__(self, instance: Instance, wanted: str) -> None:
        self._began = time.monotonic()
        self._wanted = wanted
        self._ended = False
        self._lock = threading.Lock()
        self._status = ""
        self._name = clean(instance.name)

    @contextlib.contextmanager
    def on_terminal(self) -> Iterator[None]:
        """Show a line that moves, below the statuses."""
        from rich.live import Live

        with Live(
            get_renderable=self._render,
            console=console(stderr=True),
            refresh_per_second=_FRAMES_PER_SECOND,
            transient=True,
        ):
            yield

    def add(self, status: str) -> None:
        """Note a status."""
        with self._lock:
            if self._ended or status == self._status:
                return
            self._status = status
            elapsed = time.monotonic() - self._began
            note(f"{elapsed:8.1f} s  {clean(status)}")

    def end(self) -> None:
        """Show nothing any more."""
        with self._lock:
            self._ended = True

    def _render(self) -> Text:
        from rich.text import Text

        elapsed = time.monotonic() - self._began
        frame = "|/-\\"[int(elapsed * _FRAMES_PER_SECOND) % 4]
        return Text(f"{frame} {elapsed:6.1f} s  {self._name}: {self._status}, until {self._wanted}")


class _Follower(threading.Thread):
    """Notes each status in the stream of events; the wait itself reports failures."""

    def __init__(self, server: ServerAccess, instance_id: str, progress: _Progress) -> None:
        super().__init__(daemon=True, name="statuses")
        self._server = server
        self._instance_id = instance_id
        self._progress = progress
        self._ended = threading.Event()
        self._cancel: Callable[[], object] | None = None

    def run(self) -> None:
        """Follow until `end`, or until the stream fails."""
        with contextlib.suppress(Exception, asyncio.CancelledError):  # progress is not the result
            # Made in this thread, because Ctrl-C interrupts the main one anywhere.
            asyncio.run(self._main())

    def end(self) -> None:
        """Close the connection, and end the thread."""
        self._ended.set()
        if self._cancel is not None:
            with contextlib.suppress(RuntimeError):  # the stream failed, and its loop is closed
                self._cancel()
        self.join(_CLOSED_WITHIN)

    async def _main(self) -> None:
        # A task can be cancelled wherever it waits, also while it connects; a blocking call cannot.
        task = asyncio.ensure_future(self._follow())
        self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, task.cancel)
        if self._ended.is_set():
            task.cancel()
        await task

    async def _follow(self) -> None:
        from novitai_client import AsyncNovitai

        async with AsyncNovitai(self._server.url, self._server.key) as client:
            listed = await client.request("GET", "/api/instances", query={"limit": 1})
            self._progress.add((await client.instances.get(self._instance_id)).status)
            since = listed.headers.get("Event-Cursor")
            stream = client.events.stream(since=since, instance_id=self._instance_id)
            async for event in stream:
                status = getattr(event, "data", {}).get("status")
                if isinstance(status, str):
                    self._progress.add(status)

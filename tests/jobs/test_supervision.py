# SPDX-License-Identifier: Apache-2.0
"""Supervision of loops."""

from __future__ import annotations

import asyncio

from structlog.testing import capture_logs

from novitai.jobs.supervision import Loop, Supervisor


async def ended(supervisor: Supervisor, loop: Loop) -> list[dict[str, object]]:
    """Wait for the end of a watched loop and return what was logged."""
    with capture_logs() as lines:
        supervisor.watch(loop)
        await asyncio.wait({loop})
        await asyncio.sleep(0)
    return [dict(line) for line in lines]


async def fail() -> None:
    """Raise."""
    raise LookupError("a defect")


async def test_a_loop_that_fails_is_logged_with_its_error() -> None:
    """`loop_ended` names the loop and carries the error."""
    supervisor = Supervisor()
    [line] = await ended(supervisor, asyncio.create_task(fail(), name="sweep"))
    assert (line["event"], line["loop"], line["log_level"]) == ("loop_ended", "sweep", "critical")
    assert isinstance(line["exc_info"], LookupError)
    assert supervisor.names == []


async def test_a_loop_that_returns_or_is_cancelled_is_logged() -> None:
    """`loop_ended` is also logged if a loop returns or is cancelled."""
    supervisor = Supervisor()
    [line] = await ended(supervisor, asyncio.create_task(asyncio.sleep(0), name="returns"))
    assert (line["event"], line["loop"]) == ("loop_ended", "returns")
    loop: Loop = asyncio.create_task(asyncio.sleep(3600), name="cancelled")
    loop.cancel()
    [line] = await ended(supervisor, loop)
    assert (line["event"], line["loop"]) == ("loop_ended", "cancelled")


async def test_an_end_after_close_is_expected() -> None:
    """After `close`, the end of a loop is not logged, even if it raises."""
    supervisor = Supervisor()
    supervisor.close()
    assert await ended(supervisor, asyncio.create_task(fail())) == []


async def test_the_loops_that_run_are_known() -> None:
    """`names` lists the loops that are running."""
    supervisor = Supervisor()
    loops: list[Loop] = [asyncio.create_task(asyncio.sleep(3600), name=name) for name in ("b", "a")]
    supervisor.watch(*loops)
    assert supervisor.names == ["a", "b"]
    supervisor.close()
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    assert supervisor.names == []

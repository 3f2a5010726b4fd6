# SPDX-License-Identifier: Apache-2.0
"""Check that this machine's clock agrees with the database server's.

Processes on several machines compare times: leases, the last moment to send a create call, and
the order of a listing and a call. If their clocks were seconds apart, one process could claim an
operation whose lease another process still holds.
"""

from __future__ import annotations

import sys
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.errors import StartupError
from novitai.store.engine.database import Database
from novitai.store.queries import coordination

TOLERATED: Final = 2_000
"""The tolerated skew, in milliseconds: much more than under NTP, much less than a lease."""
_READINGS: Final = 3
_CONFIG: Final = 78  # EX_CONFIG of sysexits(3)

_log = structlog.get_logger(__name__)


async def skew(database: Database, clock: Clock) -> int:
    """Return the least milliseconds our clock is ahead of the database's; negative if behind.

    It uses the fastest of three readings and subtracts half of its round trip, so that a slow
    database does not count as a wrong clock. Returns 0 on the embedded store.
    """
    best: tuple[int, int] | None = None
    for _ in range(_READINGS):
        began = clock.now()
        theirs = await database.read(coordination.server_time)
        if theirs is None:
            return 0
        ended = clock.now()
        best = min(best or (sys.maxsize, 0), (ended - began, (began + ended) // 2 - theirs))
    took, ahead = best or (0, 0)
    surely = max(0, abs(ahead) - took // 2)
    return surely if ahead > 0 else -surely


async def insist(database: Database, clock: Clock) -> None:
    """Refuse to start with a wrong clock.

    Raises:
        StartupError: the clocks are more than two seconds apart.
    """
    ahead = await skew(database, clock)
    if abs(ahead) > TOLERATED:
        raise StartupError(_told(ahead), exit_code=_CONFIG)


async def warn(database: Database, clock: Clock) -> None:
    """Log an error if the clock has become wrong since the start."""
    ahead = await skew(database, clock)
    if abs(ahead) > TOLERATED:
        _log.error("clock_wrong", error=_told(ahead))


def _told(ahead: int) -> str:
    way = "ahead of" if ahead > 0 else "behind"
    return (
        f"this machine's clock is {abs(ahead) / 1000:.1f} s {way} the database's: "
        "set both by NTP (`timedatectl set-ntp true`)"
    )

# SPDX-License-Identifier: Apache-2.0
"""The emulator's clock: virtual Unix seconds that run `speed` times faster than real seconds.

The emulator takes all times from it, except the real times and durations in the call log.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

TimeSource = Callable[[], float]


class EmulatorClock:
    """A virtual clock; it never runs backwards, even when its speed changes.

    Args:
        speed: Virtual seconds per real second; above 0.
        source: Returns real monotonic seconds; tests pass a source that they control.
        epoch: The virtual Unix time at which the clock starts; by default the current time.
    """

    __slots__ = ("_anchor_real", "_anchor_virtual", "_source", "_speed")

    def __init__(
        self,
        speed: float = 1.0,
        *,
        source: TimeSource = time.monotonic,
        epoch: float | None = None,
    ) -> None:
        self._source = source
        self._speed = _checked(speed)
        self._anchor_real = source()
        self._anchor_virtual = time.time() if epoch is None else epoch

    @property
    def speed(self) -> float:
        """Virtual seconds per real second."""
        return self._speed

    def now(self) -> float:
        """Return the virtual time in Unix seconds."""
        return self._anchor_virtual + (self._source() - self._anchor_real) * self._speed

    def real(self) -> float:
        """Return real monotonic seconds, for rate limits, which are not scaled."""
        return self._source()

    def set_speed(self, speed: float) -> None:
        """Change the speed from now on; the current virtual time does not jump.

        Raises:
            ValueError: The speed is not a finite number above 0.
        """
        checked = _checked(speed)
        self._anchor_virtual = self.now()
        self._anchor_real = self._source()
        self._speed = checked

    def advance(self, seconds: float) -> None:
        """Move the virtual time forward by `seconds`.

        Raises:
            ValueError: The number is negative or not finite.
        """
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError("time can only be advanced by a finite number of seconds, 0 or more")
        self._anchor_virtual += seconds

    def real_until(self, virtual: float) -> float:
        """Return the real seconds until a virtual time is reached; 0 if it has passed."""
        return max(0.0, (virtual - self.now()) / self._speed)


def _checked(speed: float) -> float:
    if not math.isfinite(speed) or speed <= 0:
        raise ValueError(f"the speed must be a finite number above 0, not {speed!r}")
    return float(speed)

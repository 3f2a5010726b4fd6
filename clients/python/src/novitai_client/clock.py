# SPDX-License-Identifier: Apache-2.0
"""Time and randomness. Tests put others in place of the machine's."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Time in seconds, and a random number from 0 to 1 for the spread of retries.

    Attributes:
        monotonic: The time that deadlines are measured in.
        sleep: Waits in `Novitai`.
        pause: Waits in `AsyncNovitai`.
        random: A number from 0 to 1.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = random.random

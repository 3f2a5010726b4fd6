# SPDX-License-Identifier: Apache-2.0
"""Free memory goes back to the operating system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_SCRIPT = """
import psutil
from novitai.telemetry.memory import give_back

def resident():
    return psutil.Process().memory_info().rss

# Not Python's own small objects, and each too small for a mapping of its own.
kept = [bytes(100_000) for _ in range(600)]
last = bytes(100_000)
before = resident()
del kept
free = resident()
give_back()
print(before - resident() > 30_000_000, free - resident() > 0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps it")
def test_it_is_given_back() -> None:
    """Also where an object that lives on is behind the free memory."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == ["True", "True"]

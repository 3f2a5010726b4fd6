# SPDX-License-Identifier: Apache-2.0
"""What a fuzzer that reads the OpenAPI document finds: nothing.

Every check of schemathesis is on; `schemathesis.toml` says what the document cannot. The number of
cases is bounded and their seed fixed, unless the environment asks for more:
`FUZZ_EXAMPLES=500 pytest tests/fuzz` tries so many a route, each time with another seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.live import ADMIN_KEY, live

FOLDER = Path(__file__).parent
LONG = os.environ.get("FUZZ_EXAMPLES")


@pytest.mark.timeout(0 if LONG else 600)
def test_a_fuzzer_finds_nothing(sqlite_database_url: str, tmp_path: Path) -> None:
    """No answer is undocumented, no wrong request accepted, no right one refused, none breaks."""
    with live(sqlite_database_url, tmp_path) as server:
        paths = server.http.get("/openapi.json").json()["paths"]
        # A process of its own: its hooks and settings would be those of the whole test run.
        run = subprocess.run(
            [
                Path(sys.executable).with_name("schemathesis"),
                f"--config-file={FOLDER / 'schemathesis.toml'}",
                "run",
                f"{server.url}/openapi.json",
                f"--header=Authorization: Bearer {ADMIN_KEY}",
                "--checks=all",
                "--phases=examples,coverage,fuzzing,stateful",
                f"--max-examples={LONG or 3}",
                *([] if LONG else ["--seed=7"]),
                "--continue-on-failure",
                "--warnings=off",
                "--no-color",
            ],
            cwd=tmp_path,
            env={**os.environ, "HYPOTHESIS_STORAGE_DIRECTORY": str(tmp_path / "hypothesis")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert f"Tested: {sum(map(len, paths.values()))}\n" in run.stdout

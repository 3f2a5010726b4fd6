# SPDX-License-Identifier: Apache-2.0
"""A fuzzer that reads the OpenAPI document finds no defect.

Every check of schemathesis is on; `schemathesis.toml` states what the document cannot express. By
default the number of cases is small and the seed is fixed. `FUZZ_EXAMPLES=500 pytest tests/fuzz`
tries 500 cases for each route, with a new seed for each run.
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
    """Every answer is documented, wrong requests are refused, right ones accepted, none fails."""
    with live(sqlite_database_url, tmp_path) as server:
        paths = server.http.get("/openapi.json").json()["paths"]
        # In its own process, so that its hooks and settings do not affect the test run.
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
            timeout=None if LONG else 500,
        )
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    # All but the stream of events.
    assert f"Tested: {sum(map(len, paths.values())) - 1}\n" in run.stdout

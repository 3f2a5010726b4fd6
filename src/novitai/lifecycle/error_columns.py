# SPDX-License-Identifier: Apache-2.0
"""An instance's error, as columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final


def error_columns(code: str, message: str, now: int) -> dict[str, object]:
    """Write an instance's error as columns."""
    return {"error_code": code, "error_message": message, "error_at": now}


NO_ERROR: Final[Mapping[str, object]] = {
    "error_code": None,
    "error_message": None,
    "error_at": None,
}
"""The columns of an instance with which nothing is wrong."""

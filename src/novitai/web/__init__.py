# SPDX-License-Identifier: Apache-2.0
"""The dashboard: its built files, which are in `static/` and part of the package."""

from __future__ import annotations

from pathlib import Path
from typing import Final

BUILT: Final = Path(__file__).parent / "static"
"""The folder of the built files; it may be missing in a source tree."""
PAGE: Final = "index.html"
LIBRARY: Final = "docs"
"""The folder in `BUILT` with the files of Swagger UI, as its authors built them."""


def is_built() -> bool:
    """Whether this installation has the dashboard."""
    return (BUILT / PAGE).is_file()

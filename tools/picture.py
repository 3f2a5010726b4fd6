# SPDX-License-Identifier: Apache-2.0
"""Draw `docs/demo.svg` from what `novitai demo --once` prints: `python -m tools.picture`.

The drawing uses no font and no script from elsewhere, so that it looks the same offline.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final
from xml.sax.saxutils import escape

from tools.words import ROOT

PICTURE: Final = ROOT / "docs/demo.svg"
_WITHIN: Final = 180.0
_LINE: Final = 20
_COLUMN: Final = 8.4
_LONGEST: Final = 96
_COLOURS: Final = {"creating": "#79c0ff", "starting": "#e3b341", "running": "#56d364"}


def draw(lines: list[str]) -> str:
    """Write an SVG of a terminal that shows these lines."""
    wrapped = [part for line in lines for part in _wrap(line)]
    width = int(_LONGEST * _COLUMN) + 40
    height = len(wrapped) * _LINE + 50
    title = escape("The demo: one instance from creating to running")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{title}</title>",
        '<rect width="100%" height="100%" rx="8" fill="#0d1117"/>',
        '<g font-family="ui-monospace, Menlo, Consolas, monospace" font-size="14">',
    ]
    for number, line in enumerate(wrapped):
        y = 36 + number * _LINE
        colour = _colour(line)
        parts.append(
            f'<text x="20" y="{y}" fill="{colour}" xml:space="preserve">{escape(line)}</text>'
        )
    return "\n".join([*parts, "</g>", "</svg>", ""])


def _wrap(line: str) -> list[str]:
    if len(line) <= _LONGEST:
        return [line]
    cut = line.rfind(" ", 0, _LONGEST)
    return [line[:cut], *_wrap(f"  {line[cut + 1 :]}")]


def _colour(line: str) -> str:
    state = re.match(r" +[\d.]+ s +(\w+)", line)
    if line.startswith("$"):
        return "#ffffff"
    return _COLOURS.get(state[1], "#c9d1d9") if state else "#c9d1d9"


def main() -> int:
    """Run the demo and draw what it prints."""
    novitai = Path(sys.executable).with_name("novitai")
    done = subprocess.run(
        [novitai, "demo", "--once"], capture_output=True, text=True, check=True, timeout=_WITHIN
    )
    PICTURE.write_text(draw(["$ make demo", *done.stdout.rstrip().split("\n")[:-2]]))
    print(f"{PICTURE.relative_to(ROOT)}: drawn")
    return 0


if __name__ == "__main__":
    sys.exit(main())

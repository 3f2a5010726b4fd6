# SPDX-License-Identifier: Apache-2.0
"""The one way to show rows and objects: a table, lines of a pipe, or the JSON of the API."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from novitai.cli.client.failures import UsageFailed
from novitai.cli.client.wording import NONE, clean
from novitai.cli.output import say

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

    from novitai_client.wire import Model

T = TypeVar("T")
_GAP = "  "


@dataclass(frozen=True, slots=True)
class ListColumn(Generic[T]):
    """A column of a list.

    Attributes:
        name: Its name in `--columns`; the heading is the name in capitals.
        value: The text of a row.
        right: Whether it is aligned to the right, as numbers are.
        extra: Whether it is shown only if `--columns` names it.
        style: The colour of a row, on a terminal.
        whole: Whether a narrow terminal must not break its text into lines.
    """

    name: str
    value: Callable[[T], object]
    right: bool = False
    extra: bool = False
    style: Callable[[T], str] | None = None
    whole: bool = False

    def text(self, row: T) -> str:
        """Return the text of a row, on one line and without control characters."""
        value = self.value(row)
        return NONE if value is None or value == "" else clean(value)


def chosen(columns: Sequence[ListColumn[T]], names: str | None) -> list[ListColumn[T]]:
    """Return the columns that are wanted, in the wanted order.

    Raises:
        UsageFailed: there is no such column.
    """
    if names is None:
        return [column for column in columns if not column.extra]
    known = {column.name: column for column in columns}
    wanted = [name.strip().lower() for name in names.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        told = f"there is no column {clean(unknown[0])!r}" if unknown else "it names no column"
        raise UsageFailed(f"--columns: {told}", f"The columns are: {', '.join(known)}.")
    return [known[name] for name in wanted]


def is_terminal() -> bool:
    """Whether the result is shown on a terminal."""
    return sys.stdout.isatty()


def show(columns: Sequence[ListColumn[T]], rows: Sequence[T], *, header: bool) -> None:
    """Write rows: a table on a terminal, and aligned lines otherwise."""
    if not rows:
        return
    if is_terminal():
        say(captured(table(columns, rows, header=header)))
    else:
        for line in lines(columns, rows, header=header):
            say(line)


def lines(columns: Sequence[ListColumn[T]], rows: Sequence[T], *, header: bool) -> list[str]:
    """Return rows as lines with aligned columns; nothing is cut off."""
    cells = [[column.text(row) for column in columns] for row in rows]
    if header:
        cells.insert(0, [column.name.upper() for column in columns])
    widths = [max(width(row[n]) for row in cells) for n in range(len(columns))]
    return [_line(columns, row, widths) for row in cells]


def _line(columns: Sequence[ListColumn[T]], row: Sequence[str], widths: Sequence[int]) -> str:
    shown = []
    for column, text, wanted in zip(columns, row, widths, strict=True):
        pad = " " * (wanted - width(text))
        shown.append(pad + text if column.right else text + pad)
    return _GAP.join(shown).rstrip()


def width(text: str) -> int:
    """Return the number of cells that a text takes on a terminal."""
    if text.isascii():
        return len(text)
    wide = sum(1 for one in text if unicodedata.east_asian_width(one) in "WF")
    return len(text) + wide - sum(1 for one in text if unicodedata.combining(one))


def table(columns: Sequence[ListColumn[T]], rows: Sequence[T], *, header: bool) -> Table:
    """Return rows as a table of rich; no text is read as markup."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, show_header=header, header_style="bold")
    for column in columns:
        made.add_column(
            Text(column.name.upper()),
            justify="right" if column.right else "left",
            no_wrap=column.right or column.whole,
            overflow="fold",
        )
    for row in rows:
        made.add_row(
            *(
                Text(column.text(row), style=column.style(row) if column.style else "")
                for column in columns
            )
        )
    return made


def console(*, stderr: bool = False) -> Console:
    """Return a console of rich; `NO_COLOR` leaves out every style, not only colours."""
    from rich.console import Console

    plain = bool(os.environ.get("NO_COLOR"))
    return Console(
        stderr=stderr,
        markup=False,
        highlight=False,
        emoji=False,
        color_system=None if plain else "auto",
    )


def captured(shown: RenderableType) -> str:
    """Return what rich would print, so that a failure to write it is an error with a message."""
    made = console()
    with made.capture() as capture:
        made.print(shown)
    return "\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n"))


def facts(pairs: Sequence[tuple[str, object]]) -> None:
    """Write names with values, one a line; those without a value are left out."""
    shown = [(name, clean(value)) for name, value in pairs if value not in {None, "", NONE}]
    longest = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name + ':':<{longest + 1}}  {value}")


def api_json(value: object) -> Any:
    """Return an object as the API wrote it: its names, its times, and no field that was absent."""
    from pydantic import BaseModel

    if isinstance(value, BaseModel):
        # A mapping of Python values, so that times keep the form of the API.
        return api_json(value.model_dump(by_alias=True, exclude_unset=True))
    if isinstance(value, datetime):
        at = value.astimezone(UTC)
        return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"
    if isinstance(value, Mapping):
        return {name: api_json(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [api_json(inner) for inner in value]
    return value


def show_json(value: Model | Mapping[str, object] | object, *, line: bool = False) -> None:
    """Write an object as JSON, on one line if others follow it.

    Control characters are escaped, so that a terminal cannot be steered.
    """
    text = json.dumps(api_json(value), indent=None if line else 2, ensure_ascii=True)
    say(text)

# SPDX-License-Identifier: Apache-2.0
"""Log lines: JSON in production, text in a terminal, and secrets masked in both.

Call `set_up` once per process. A caller names an event in snake_case and passes facts as keyword
arguments; `bind` adds facts (the request ID) to every line of the running task.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterable, Mapping, MutableMapping
from contextvars import ContextVar
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, TextIO

import orjson
import structlog

from novitai.urls import MASK, mask_within

_MAX_MESSAGE: Final = 500
_MAX_FRAMES: Final = 30
_MAX_MASKED: Final = 2048
_SHORT: Final = 64
"""Characters of the texts whose masked form is remembered."""

_LEVELS: Final = {"exception": "error", "warn": "warning"}
_NUMBERS: Final = frozenset({bool, int, float})

_SECRET_NAMES: Final = re.compile(
    r"(?i)(^|_)(authorization|password|passwd|secret|envs?|token|credentials?|api_?key|cookie)$"
)
_SECRET_TEXT: Final = re.compile(
    r"nvt_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=_-]+|(?i:bearer)\s+[^\s\"']+"
    r"|(?<=://)[^\s/@\"']+(?=@)"
    # Database drivers write their connection strings in this form.
    r"|(?i:(?<=password=)|(?<=passwd=)|(?<=secret=)|(?<=token=)|(?<=api_key=)|(?<=apikey=))[^\s&;,]+"
)

_MARKS: Final = ("nvt_", "whsec_", "bearer", "://", "=")
"""One of these is in every text with the form of a secret; to look for them takes less time."""

_bound: ContextVar[Mapping[str, str]] = ContextVar("bound", default=MappingProxyType({}))

EventDict = MutableMapping[str, Any]  # structlog's type for a line that is being processed


def set_up(*, production: bool, secrets: Iterable[str] = (), stream: TextIO | None = None) -> None:
    """Send the lines of structlog and of the standard library to one stream, in one format.

    Args:
        production: Write JSON lines; if false, text for people.
        secrets: Values to mask, such as the secrets of the settings.
        stream: Where to write; standard error by default.
    """
    target = stream or sys.stderr
    masker = Masker(secrets)
    finish = _Finisher(masker)
    renderer: structlog.typing.Processor = (
        _to_json
        if production
        else structlog.dev.ConsoleRenderer(colors=target.isatty(), sort_keys=False)
    )
    lines = _Lines(target, masker)
    # Not through the standard library, which would take several times as long.
    structlog.configure(
        processors=[finish, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_names: lines,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # Lines of libraries do not pass through structlog's processors, so mask them here.
            foreign_pre_chain=[_take_exc_info, finish],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # The API logs each request itself; these would add a second line, with the whole URL.
    for name in ("uvicorn.access", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


def write(event: str, facts: EventDict) -> None:
    """Log a line at level info, as a logger of structlog does in three times the time.

    For the line of each request; `facts` become the line. The JSON lines of one turn of the event
    loop are masked and written together, at its end.
    """
    facts["event"] = event
    config = structlog.get_config()
    processors = config["processors"]
    if processors[-1] is _to_json:
        config["logger_factory"]().put(facts)
        return
    try:
        for process in processors:
            facts = process(None, "info", facts)
    except structlog.DropEvent:
        return
    config["logger_factory"]().msg(facts)


class bind:  # noqa: N801 - used like a function
    """Add facts to every line that is logged within the block."""

    __slots__ = ("_before", "_facts")

    def __init__(self, **facts: str) -> None:
        self._before = before = _bound.get()
        self._facts = {**before, **facts} if before else facts

    def __enter__(self) -> None:
        _bound.set(self._facts)

    def __exit__(self, *_error: object) -> None:
        _bound.set(self._before)


class _Finisher:
    """Completes and masks a line, in one function, because each call costs as much as its work."""

    def __init__(self, masker: Masker) -> None:
        self._mask = masker

    def __call__(self, logger: object, method: str, line: EventDict) -> EventDict:
        _add_bound(line)
        if "exc_info" in line:
            explain_exception(logger, method, line)
        self._mask(logger, method, line)
        line["level"] = _LEVELS.get(method, method)
        line["timestamp"] = _now()
        return line


class _Lines:
    """Writes each line at once; a stream that fails loses it, as in the standard library."""

    def __init__(self, stream: TextIO, masker: Masker) -> None:
        self._stream = stream
        self._masker = masker
        self._waiting: list[EventDict] = []

    def msg(self, line: str) -> None:
        """Write a line."""
        self._write(line + "\n")

    def put(self, line: EventDict) -> None:
        """Write a line of level info at the end of this turn of the event loop."""
        _add_bound(line)
        line["level"] = "info"
        line["timestamp"] = _now()
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self._write_waiting)
        self._waiting.append(line)

    def _write_waiting(self) -> None:
        lines, self._waiting = self._waiting, []
        text = "".join([f"{_to_json(None, '', line)}\n" for line in lines])
        names = {tuple(line) for line in lines}
        if any(_names_secret(each) for each in names) or not self._masker.is_plain(text):
            masked = [self._masker(None, "", line) for line in lines]
            text = "".join([f"{_to_json(None, '', line)}\n" for line in masked])
        self._write(text)

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            return

    debug = info = warning = error = critical = exception = msg


def _add_bound(line: EventDict) -> None:
    for name, value in _bound.get().items():
        line.setdefault(name, value)


def _now() -> str:
    seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
    return f"{_second(seconds)}.{nanoseconds // 1000:06}Z"


@lru_cache(4)
def _second(seconds: int) -> str:
    """Return a second of Unix time in ISO-8601 without its zone."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None).isoformat()


class Masker:
    """Masks secrets in a line: by the name of the fact, by their form, and by value."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first: if one secret begins with another, the whole of it is masked.
        known = sorted({secret for secret in secrets if len(secret) >= 6}, key=len, reverse=True)
        self._marks = (*_MARKS, *(secret.lower() for secret in known))
        literal = "|".join(re.escape(secret) for secret in known)
        self._pattern = re.compile(f"{literal}|{_SECRET_TEXT.pattern}" if literal else _SECRET_TEXT)
        # JSON shows these as they are, so that they can be looked for in lines as well.
        self._is_shown = all(orjson.dumps(mark)[1:-1] == mark.encode() for mark in self._marks)
        # The same templates, addresses and IDs come again and again.
        self._short = lru_cache(_MAX_MASKED)(self._mask)

    def __call__(self, _logger: object, _method: str, line: EventDict) -> EventDict:
        """Mask every fact of a line."""
        for name, value in line.items():
            kind = type(value)
            if kind is str and len(value) <= _SHORT:
                line[name] = self._short(name, value)
            elif kind not in _NUMBERS or _is_secret(name):
                line[name] = self._mask(name, value)
        return line

    def text(self, text: str) -> str:
        """Mask everything in a text that is a known secret or has the form of one."""
        if self._has_no_mark(text):
            return text
        return self._pattern.sub(MASK, mask_within(text) if "://" in text else text)

    def is_plain(self, lines: str) -> bool:
        """Whether JSON lines certainly have no text to mask; looks at all of them at once."""
        return self._is_shown and self._has_no_mark(lines)

    def _has_no_mark(self, text: str) -> bool:
        lowered = text.lower()
        return all(mark not in lowered for mark in self._marks)

    def _mask(self, name: str, value: object) -> object:
        if _is_secret(name):
            return MASK
        if isinstance(value, str):
            return self.text(value)
        if value is None or type(value) in _NUMBERS:
            return value
        if isinstance(value, Mapping):
            return {key: self._mask(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._mask(name, item) for item in value]
        return value


@lru_cache(_MAX_MASKED)
def _is_secret(name: str) -> bool:
    return _SECRET_NAMES.search(name) is not None


@lru_cache(_MAX_MASKED)
def _names_secret(names: tuple[str, ...]) -> bool:
    return any(_is_secret(name) for name in names)


def explain_exception(_logger: object, _method: str, line: EventDict) -> EventDict:
    """Replace `exc_info` by the error's type, the first line of its message, and its stack frames.

    The later lines of a database error hold the SQL and its parameters. Source lines and local
    variables are left out too, because they may hold secrets.
    """
    given = line.pop("exc_info", None)
    error = given if isinstance(given, BaseException) else sys.exc_info()[1] if given else None
    if isinstance(given, tuple):
        error = given[1]
    if error is None:
        return line
    line["error"] = f"{type(error).__module__}.{type(error).__qualname__}"
    line["error_message"] = str(error).partition("\n")[0][:_MAX_MESSAGE]
    line["error_at"] = [
        f"{frame.filename}:{frame.lineno} in {frame.name}"
        for frame in traceback.extract_tb(error.__traceback__, -_MAX_FRAMES)
    ]
    if error.__cause__ is not None:
        line["error_cause"] = f"{type(error.__cause__).__module__}.{type(error.__cause__).__name__}"
    return line


def _take_exc_info(_logger: object, _method: str, line: EventDict) -> EventDict:
    record = line.get("_record")
    if isinstance(record, logging.LogRecord) and record.exc_info:
        line["exc_info"] = record.exc_info
        # Otherwise the standard library's formatter appends the traceback.
        record.exc_info = None
        record.exc_text = None
    return line


def _to_json(_logger: object, _method: str, line: EventDict) -> str:
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

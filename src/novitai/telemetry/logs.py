# SPDX-License-Identifier: Apache-2.0
"""Log lines: JSON in production, text in a terminal, and secrets masked in both.

Call `set_up` once per process. A caller names an event in snake_case and passes facts as keyword
arguments; `bind` adds facts (the request ID) to every line of the running task.
"""

from __future__ import annotations

import logging
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, TextIO

import orjson
import structlog

from novitai.urls import MASK, mask_within

_MAX_MESSAGE: Final = 500
_MAX_FRAMES: Final = 30

_SECRET_NAMES: Final = re.compile(
    r"(?i)(^|_)(authorization|password|passwd|secret|envs?|token|credentials?|api_?key|cookie)$"
)
_SECRET_TEXT: Final = re.compile(
    r"nvt_[A-Za-z0-9]{8,}|whsec_[A-Za-z0-9+/=_-]+|(?i:bearer)\s+[^\s\"']+"
    r"|(?<=://)[^\s/@\"']+(?=@)"
    # Database drivers write their connection strings in this form.
    r"|(?i:(?<=password=)|(?<=passwd=)|(?<=secret=)|(?<=token=)|(?<=api_key=)|(?<=apikey=))[^\s&;,]+"
)

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
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        explain_exception,
        masker,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json)
        if production
        else structlog.dev.ConsoleRenderer(colors=target.isatty(), sort_keys=False)
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            # Lines of libraries do not pass through structlog's processors, so mask them here.
            foreign_pre_chain=[*shared[:3], _take_exc_info, *shared[3:]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # The API logs each request itself; these would add a second line, with the whole URL.
    for name in ("uvicorn.access", "httpx", "httpx2", "httpcore", "httpcore2"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextmanager
def bind(**facts: str) -> Iterator[None]:
    """Add facts to every line that is logged within the block."""
    with structlog.contextvars.bound_contextvars(**facts):
        yield


class Masker:
    """Masks secrets in a line: by the name of the fact, by their form, and by value."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first: if one secret begins with another, the whole of it is masked.
        known = sorted({secret for secret in secrets if len(secret) >= 6}, key=len, reverse=True)
        literal = "|".join(re.escape(secret) for secret in known)
        self._pattern = re.compile(f"{literal}|{_SECRET_TEXT.pattern}" if literal else _SECRET_TEXT)

    def __call__(self, _logger: object, _method: str, line: EventDict) -> EventDict:
        """Mask every fact of a line."""
        for name, value in line.items():
            line[name] = self._mask(name, value)
        return line

    def text(self, text: str) -> str:
        """Mask everything in a text that is a known secret or has the form of one."""
        return self._pattern.sub(MASK, mask_within(text))

    def _mask(self, name: str, value: object) -> object:
        if _SECRET_NAMES.search(name):
            return MASK
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {key: self._mask(str(key), item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._mask(name, item) for item in value]
        return value


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


def _to_json(line: object, **_options: object) -> str:
    return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()

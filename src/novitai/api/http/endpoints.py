# SPDX-License-Identifier: Apache-2.0
"""The endpoints of the application: which function answers a path and a method."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from starlette.convertors import Convertor
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import compile_path

from novitai.api.http import paths  # noqa: F401 - registers the converters of path parameters
from novitai.api.http.errors import not_found
from novitai.errors import MethodNotAllowed

Endpoint = Callable[[Request], Awaitable[Response]]
"""Answers a request, or raises an `ApiError`."""

_MAX_REMEMBERED: Final = 1_024
_SHORT: Final = 256
"""Characters of the paths that are remembered."""
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(slots=True)
class _Path:
    template: str
    pattern: re.Pattern[str]
    converters: Mapping[str, Convertor[Any]]
    methods: dict[str, Endpoint] = field(default_factory=dict)


class Endpoints:
    """The endpoints by path and method."""

    def __init__(self) -> None:
        self._whole: dict[str, _Path] = {}
        self._patterns: dict[str, _Path] = {}
        self._other: Endpoint | None = None
        # The same paths come again and again.
        self._found = lru_cache(_MAX_REMEMBERED)(self._find)

    def add(self, path: str, method: str, endpoint: Endpoint) -> None:
        """Add an endpoint; parameters in the path are written as Starlette does."""
        pattern, template, converters = compile_path(path)
        table = self._patterns if converters else self._whole
        self._found.cache_clear()
        table.setdefault(path, _Path(template, pattern, converters)).methods[method] = endpoint

    def fall_back(self, endpoint: Endpoint) -> None:
        """Let an endpoint answer the GETs of all paths that no other endpoint has."""
        self._found.cache_clear()
        self._other = endpoint

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """Iterate over templates of paths and their methods."""
        for table in (self._whole, self._patterns):
            for path in table.values():
                for method in path.methods:
                    yield path.template, method

    def find(self, path: str, method: str) -> tuple[Endpoint, dict[str, str]]:
        """Return the endpoint of a path and method, and the path's parameters.

        Raises:
            NotFound: no endpoint has this path.
            MethodNotAllowed: only endpoints of other methods have it.
        """
        endpoint, parameters = (self._found if len(path) <= _SHORT else self._find)(path, method)
        return endpoint, {**parameters}

    def _find(self, path: str, method: str) -> tuple[Endpoint, Mapping[str, str]]:
        whole = self._whole.get(path)
        if whole is not None and method in whole.methods:
            return whole.methods[method], {}
        allowed = set() if whole is None else set(whole.methods)
        for one in self._patterns.values():
            found = one.pattern.match(path)
            if found is None:
                continue
            endpoint = one.methods.get(method)
            if endpoint is not None:
                given = found.groupdict().items()
                return endpoint, {name: one.converters[name].convert(text) for name, text in given}
            allowed.update(one.methods)
        if not allowed:
            if self._other is not None and method == "GET":
                return self._other, {}
            raise not_found()
        raise _not_allowed(allowed)


def _not_allowed(allowed: set[str]) -> MethodNotAllowed:
    # Every GET endpoint also answers HEAD.
    told = [one for one in _METHODS if one in allowed or (one == "HEAD" and "GET" in allowed)]
    return MethodNotAllowed(
        f"Method not allowed; this path answers {', '.join(told)}",
        headers={"Allow": ", ".join(told)},
    )

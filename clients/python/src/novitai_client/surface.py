# SPDX-License-Identifier: Apache-2.0
"""One source for the blocking and the asynchronous surface.

Every method is written once, as `async def`. `AsyncNovitai` hands the coroutine to the caller.
`Novitai` runs it to its end at once: its input and output blocks, so the coroutine never suspends.
The three descriptors below do this, and give each surface its exact types.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager
from functools import wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeVar, overload

if TYPE_CHECKING:
    from novitai_client.sending import Api

P = ParamSpec("P")
T = TypeVar("T")


class Blocking:
    """Marks the surface of `Novitai` in types."""


class Concurrent:
    """Marks the surface of `AsyncNovitai` in types."""


Mode = TypeVar("Mode", Blocking, Concurrent)


class Resource(Generic[Mode]):
    """A group of methods that share a connection to the API."""

    def __init__(self, api: Api) -> None:
        self._api = api


def _blocks(resource: Resource[Any]) -> bool:
    return resource._api.blocking  # noqa: SLF001 - the class is in this module


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never suspends to its end.

    Raises:
        RuntimeError: it suspended, so that an event loop would be needed.
    """
    try:
        work.send(None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    work.close()
    raise RuntimeError("a blocking call must not suspend")


class _Documented:
    """Shows the docstring of the method that a descriptor wraps."""

    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.__doc__ = function.__doc__
        self.__name__ = function.__name__


class Method(_Documented, Generic[P, T]):
    """A method that returns a result."""

    def __init__(self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]) -> None:
        super().__init__(function)
        self._function = function

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Resource[Blocking], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(
        self, instance: Resource[Concurrent], owner: type
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        """Return the method as the surface of `instance` has it."""
        if instance is None:
            return self
        function, blocking = self._function, _blocks(instance)

        @wraps(function)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T] | T:
            work = function(instance, *args, **kwargs)
            return run(work) if blocking else work

        return bound


class IteratorMethod(_Documented, Generic[P, T]):
    """A method that returns an iterator."""

    def __init__(self, function: Callable[Concatenate[Any, P], AsyncGenerator[T, None]]) -> None:
        super().__init__(function)
        self._function = function

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: Resource[Blocking], owner: type) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(
        self, instance: Resource[Concurrent], owner: type
    ) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        """Return the method as the surface of `instance` has it."""
        if instance is None:
            return self
        function, blocking = self._function, _blocks(instance)

        @wraps(function)
        def bound(*args: P.args, **kwargs: P.kwargs) -> AsyncIterator[T] | Iterator[T]:
            work = function(instance, *args, **kwargs)
            return _iterate(work) if blocking else work

        return bound


def _iterate(work: AsyncGenerator[T, None]) -> Iterator[T]:
    try:
        while True:
            try:
                value = run(work.__anext__())
            except StopAsyncIteration:
                return
            yield value
    finally:
        run(work.aclose())


class ContextMethod(_Documented, Generic[P, T]):
    """A method that returns a context manager."""

    def __init__(self, function: Callable[Concatenate[Any, P], AsyncGenerator[T, None]]) -> None:
        super().__init__(function)
        self._manager = asynccontextmanager(function)

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(
        self, instance: Resource[Blocking], owner: type
    ) -> Callable[P, AbstractContextManager[T, None]]: ...
    @overload
    def __get__(
        self, instance: Resource[Concurrent], owner: type
    ) -> Callable[P, AbstractAsyncContextManager[T, None]]: ...
    def __get__(self, instance: Resource[Any] | None, owner: type) -> Any:
        """Return the method as the surface of `instance` has it."""
        if instance is None:
            return self
        manager, blocking = self._manager, _blocks(instance)

        @wraps(manager)
        def bound(*args: P.args, **kwargs: P.kwargs) -> Any:
            made = manager(instance, *args, **kwargs)
            return _BlockingContext(made) if blocking else made

        return bound


class _BlockingContext(Generic[T]):
    def __init__(self, manager: AbstractAsyncContextManager[T]) -> None:
        self._manager = manager

    def __enter__(self) -> T:
        return run(self._manager.__aenter__())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        run(self._manager.__aexit__(kind, error, traceback))

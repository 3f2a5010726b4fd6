# SPDX-License-Identifier: Apache-2.0
"""The two clients: `Novitai` blocks, `AsyncNovitai` is for asyncio. Their methods are the same."""

from __future__ import annotations

from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

import httpx2

from novitai_client.clock import Clock
from novitai_client.configuration import target
from novitai_client.sending import Answer, Api, BlockingTransport, ConcurrentTransport, certificates
from novitai_client.surface import Blocking, Concurrent, Method, Mode, Resource
from novitai_client.wire import query as encoded

if TYPE_CHECKING:
    from novitai_client.resources.catalogue import Products, Regions, Templates
    from novitai_client.resources.history import Events, Operations
    from novitai_client.resources.instances import Instances
    from novitai_client.resources.keys import Keys
    from novitai_client.resources.money import Budgets, CostReports, Quotes
    from novitai_client.resources.sessions import Sessions
    from novitai_client.resources.system import AccountState, CacheState, Server
    from novitai_client.resources.webhooks import Deliveries, Webhooks

TIMEOUT: Final = 60.0
SYSTEM_CLOCK: Final = Clock()


class Client(Resource[Mode]):
    """The resources of a server. Each is loaded when it is first used, so that a start is quick."""

    @cached_property
    def instances(self) -> Instances[Mode]:
        """Rent, create, read, change, wait, stop, delete."""
        from novitai_client.resources.instances import Instances

        return Instances(self._api)

    @cached_property
    def quotes(self) -> Quotes[Mode]:
        """The offers that a create would buy now, and their prices."""
        from novitai_client.resources.money import Quotes

        return Quotes(self._api)

    @cached_property
    def costs(self) -> CostReports[Mode]:
        """The costs of instances and of the account."""
        from novitai_client.resources.money import CostReports

        return CostReports(self._api)

    @cached_property
    def budgets(self) -> Budgets[Mode]:
        """The limits of what is spent."""
        from novitai_client.resources.money import Budgets

        return Budgets(self._api)

    @cached_property
    def events(self) -> Events[Mode]:
        """The log of changes, and new ones as they happen."""
        from novitai_client.resources.history import Events

        return Events(self._api)

    @cached_property
    def operations(self) -> Operations[Mode]:
        """Creates, stops and the like, while they run and afterwards."""
        from novitai_client.resources.history import Operations

        return Operations(self._api)

    @cached_property
    def products(self) -> Products[Mode]:
        """The products to ask for."""
        from novitai_client.resources.catalogue import Products

        return Products(self._api)

    @cached_property
    def templates(self) -> Templates[Mode]:
        """The templates to ask for."""
        from novitai_client.resources.catalogue import Templates

        return Templates(self._api)

    @cached_property
    def regions(self) -> Regions[Mode]:
        """The regions to ask for."""
        from novitai_client.resources.catalogue import Regions

        return Regions(self._api)

    @cached_property
    def webhooks(self) -> Webhooks[Mode]:
        """Standing webhooks."""
        from novitai_client.resources.webhooks import Webhooks

        return Webhooks(self._api)

    @cached_property
    def deliveries(self) -> Deliveries[Mode]:
        """The messages to webhooks."""
        from novitai_client.resources.webhooks import Deliveries

        return Deliveries(self._api)

    @cached_property
    def keys(self) -> Keys[Mode]:
        """API keys."""
        from novitai_client.resources.keys import Keys

        return Keys(self._api)

    @cached_property
    def sessions(self) -> Sessions[Mode]:
        """Sessions of browsers."""
        from novitai_client.resources.sessions import Sessions

        return Sessions(self._api)

    @cached_property
    def account(self) -> AccountState[Mode]:
        """The Novita account."""
        from novitai_client.resources.system import AccountState

        return AccountState(self._api)

    @cached_property
    def caches(self) -> CacheState[Mode]:
        """The caches of the server."""
        from novitai_client.resources.system import CacheState

        return CacheState(self._api)

    @cached_property
    def server(self) -> Server[Mode]:
        """The health and the metrics of the server."""
        from novitai_client.resources.system import Server

        return Server(self._api)

    @property
    def url(self) -> str:
        """The URL of the server."""
        return self._api.url

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    @Method
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
        idempotency_key: str | None = None,
    ) -> Answer:
        """Send a request of your own, with the same retries and errors.

        Args:
            method: The method.
            path: The path, escaped: `/api/instances`.
            query: The parameters; names in snake_case are sent in camelCase.
            content: The body, as JSON.
            headers: More headers.
            idempotency_key: A key of your own, for a POST or DELETE.

        Example:
            print(client.request("GET", "/api/instances", query={"status": "running"}).json())
        """
        return await self._api.send(
            method.upper(),
            path,
            query=encoded(**(query or {})),
            content=content,
            headers=headers,
            key=idempotency_key,
        )


class Novitai(Client[Blocking]):
    """A client whose methods block. It can be shared by threads.

    Args:
        url: The URL of the server; by default `NOVITAI_URL`, then that of the profile.
        key: The API key; by default `NOVITAI_API_KEY`, then that of the profile.
        profile: A profile of `config.toml`; by default `NOVITAI_PROFILE`, then `default`.
        timeout: Seconds for one call, with its retries and pauses. Waits have their own.
        http: A client of httpx2 with its own proxies or certificates; it is not closed.
        clock: Time and randomness, for tests.

    Raises:
        ConfigurationError: no server or no key is known.

    Example:
        with Novitai() as client:
            for instance in client.instances.list():
                print(instance.name, instance.status)
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        profile: str | None = None,
        timeout: float = TIMEOUT,
        *,
        http: httpx2.Client | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        server = target(url, key, profile)
        self._own = None
        if http is None:
            http = self._own = httpx2.Client(verify=certificates(server.url))
        super().__init__(Api(server, BlockingTransport(http, clock), timeout))

    def close(self) -> None:
        """Close the connections."""
        if self._own is not None:
            self._own.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class AsyncNovitai(Client[Concurrent]):
    """A client for asyncio. Its arguments are those of `Novitai`, with `httpx2.AsyncClient`.

    Example:
        async with AsyncNovitai() as client:
            async for instance in client.instances.list():
                print(instance.name, instance.status)
    """

    def __init__(
        self,
        url: str | None = None,
        key: str | None = None,
        profile: str | None = None,
        timeout: float = TIMEOUT,
        *,
        http: httpx2.AsyncClient | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        server = target(url, key, profile)
        self._own = None
        if http is None:
            http = self._own = httpx2.AsyncClient(verify=certificates(server.url))
        super().__init__(Api(server, ConcurrentTransport(http, clock), timeout))

    async def close(self) -> None:
        """Close the connections."""
        if self._own is not None:
            await self._own.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

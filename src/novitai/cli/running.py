# SPDX-License-Identifier: Apache-2.0
"""`novitai serve`, `api` and `worker`: the long-running processes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from novitai.cli import starting
from novitai.cli.ending import Ending, run_until_asked

if TYPE_CHECKING:
    from novitai.settings import Settings

Host = Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 or :: for all addresses.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 picks a free one.")]

WorkerPort = Annotated[
    int | None,
    typer.Option(min=0, max=65535, help="Port for metrics and health; by default, none."),
]


def serve(host: Host = "127.0.0.1", port: Port = 8080) -> None:
    """Run the API and the worker in one process, on the embedded database or on PostgreSQL."""
    with Ending() as ending:
        settings = _settings()
        from novitai.cli.serving import serve_http

        run_until_asked(ending, serve_http(settings, host, port, ending, work=True))


def api(host: Host = "127.0.0.1", port: Port = 8080) -> None:
    """Run only the API; any number of API processes can share a PostgreSQL database."""
    with Ending() as ending:
        settings = _settings()
        _require_server(settings, "api")
        from novitai.cli.serving import serve_http

        run_until_asked(ending, serve_http(settings, host, port, ending, work=False))


def worker(host: Host = "127.0.0.1", port: WorkerPort = None) -> None:
    """Run only a worker; any number of workers can share a PostgreSQL database.

    With --port, it serves /metrics and /health, for Prometheus and for probes.
    """
    with Ending() as ending:
        settings = _settings()
        _require_server(settings, "worker")
        from novitai.cli.serving import work

        run_until_asked(ending, work(settings, ending, host=host, port=port))


def _settings() -> Settings:
    starting.begin()
    from novitai.cli.serving import set_up_logs
    from novitai.settings import load

    settings = load()
    set_up_logs(settings)
    return settings


def _require_server(settings: Settings, command: str) -> None:
    if settings.embedded:
        from novitai.errors import SettingsError

        raise SettingsError(
            f"NOVITAI_DATABASE_URL: `novitai {command}` shares its database with other processes "
            "and needs postgresql://...; only `novitai serve`, which runs both the API and the "
            "worker, can use the embedded file"
        )

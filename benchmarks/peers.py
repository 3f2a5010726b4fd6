# SPDX-License-Identifier: Apache-2.0
"""What a user would write instead: FastAPI, SQLAlchemy's ORM and a response model.

It reads the same rows from a copy of the same SQLite file, with no key, limit, ETag or log.
Run as a process: `python -m benchmarks.peers FILE`. Needs the dependency group `bench`.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AliasGenerator, BaseModel, BeforeValidator, ConfigDict
from pydantic.alias_generators import to_camel
from sqlalchemy import MetaData, Table, create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Session
from starlette.types import ASGIApp

from benchmarks.serving import serve


def is_installed() -> bool:
    """Whether FastAPI can be imported."""
    return importlib.util.find_spec("fastapi") is not None


def _time(value: object) -> object:
    return datetime.fromtimestamp(value / 1000, UTC) if isinstance(value, int) else value


Time = Annotated[datetime, BeforeValidator(_time)]


class Shown(BaseModel):
    """The response model of one instance."""

    model_config = ConfigDict(
        from_attributes=True,
        alias_generator=AliasGenerator(serialization_alias=to_camel),
    )

    id: str
    name: str
    status: str
    gpu_num: int
    region: str
    created_at: Time
    ready_at: Time | None
    product_name: str
    product_id: str | None
    template_id: str
    rootfs_size: int
    billing_mode: str
    hourly_price: int | None
    webhook_url: str | None
    started_at: Time | None
    stopped_at: Time | None
    last_used_at: Time | None
    upstream_id: str | None
    obs_status: str | None
    obs_ssh: str | None
    obs_port_mappings: str
    obs_at: Time | None
    error_code: str | None
    error_message: str | None


class Page(BaseModel):
    """The response model of a list."""

    instances: list[Shown]
    total: int


def application(path: str) -> ASGIApp:
    """Build the two routes on a database file."""
    from fastapi import Depends, FastAPI

    engine = create_engine(f"sqlite:///{path}")
    table = Table("instances", MetaData(), autoload_with=engine)

    class Base(DeclarativeBase):
        metadata = table.metadata

    class Stored(Base):
        __table__ = table

    def session() -> Iterator[Session]:
        with Session(engine) as opened:
            yield opened

    given = Depends(session)

    def one(instance_id: str, session: Session = given) -> Any:
        return session.get_one(Stored, instance_id)

    def page(limit: int, session: Session = given) -> Any:
        newest = select(Stored).order_by(table.c.created_at.desc(), table.c.id.desc())
        total = session.scalar(select(func.count()).select_from(Stored))
        return {"instances": session.scalars(newest.limit(limit)).all(), "total": total}

    app = FastAPI()
    app.add_api_route("/api/instances/{instance_id}", one, response_model=Shown)
    app.add_api_route("/api/instances", page, response_model=Page)
    served: ASGIApp = app
    return served


if __name__ == "__main__":
    serve(application(sys.argv[1]))

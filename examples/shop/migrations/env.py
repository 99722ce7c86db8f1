"""Runs the migrations on the database of the setting `DATABASE_URL`."""

from __future__ import annotations

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine

from diptych import ConfigService
from diptych.ext.alembic import include_name, include_object
from examples.shop.models import Base

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


def migrate(connection: Connection) -> None:
    """Runs them on an open connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        # diptych's own tables are none of Alembic's business.
        include_name=include_name,  # type: ignore[arg-type]
        include_object=include_object,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    """Runs them in one transaction."""
    url = make_url(ConfigService().get("DATABASE_URL"))
    engine = create_async_engine(url.set(drivername=DRIVERS[url.get_backend_name()]))
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(run())

"""Runs the migrations on the database of the shop."""

import asyncio

from alembic import context
from sqlalchemy import Connection

from shop.models import Base, engine


def migrate(connection: Connection) -> None:
    """Runs them on an open connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
    )
    with context.begin_transaction():
        context.run_migrations()


async def run() -> None:
    """Runs them in one transaction."""
    async with engine.begin() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


asyncio.run(run())

"""Raw ASGI and asyncpg: an ``UPDATE … RETURNING`` that commits by itself, without any log."""

from __future__ import annotations

import os
from typing import Any

import asyncpg

from benchmarks.peers.asgi import Receive, Scope, Send, run_lifespan
from benchmarks.peers.update import HAS_DOCUMENTS, Answer, serve

COLUMNS = "id, name, maker, stock, attributes" if HAS_DOCUMENTS else "id, name, maker, stock"
UPDATE = f"UPDATE products SET stock = $2 WHERE name = $1 RETURNING {COLUMNS}"

pool: Any = None


async def prepare(connection: Any) -> None:
    import json

    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=json.loads, schema="pg_catalog")


async def start() -> None:
    global pool
    pool = await asyncpg.create_pool(
        os.environ["DATABASE_URL"], min_size=10, max_size=10, init=prepare if HAS_DOCUMENTS else None
    )


async def stop() -> None:
    await pool.close()


async def change(name: str, stock: int) -> Answer | None:
    row = await pool.fetchrow(UPDATE, name, stock)
    return None if row is None else Answer(*row)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send, start, stop)
    else:
        await serve(scope, receive, send, change)

"""FastAPI and asyncpg: the change and the row of its log in one statement, which commits by itself."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from benchmarks.peers import update_asgi

UPDATE = """
WITH before AS (SELECT id, name FROM products WHERE name = $1 FOR UPDATE),
changed AS (UPDATE products SET stock = $2 FROM before WHERE products.id = before.id RETURNING products.*),
logged AS (
    INSERT INTO diptych_log (table_name, entity, key, old_key, kind, version, image, command_id, recorded_at,
        row_id)
    SELECT 'products', 'Product', json_build_object('id', changed.id, 'name', changed.name)::text,
        json_build_object('id', before.id, 'name', before.name)::text, 'updated', 1,
        row_to_json(changed)::text, $3, clock_timestamp(), changed.id::text
    FROM changed, before)
SELECT * FROM changed
"""


class NewStock(BaseModel):
    stock: int


class Product(BaseModel):
    id: int
    name: str
    maker: str
    stock: int
    attributes: Any = None


@asynccontextmanager
async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
    await update_asgi.start()
    yield
    await update_asgi.stop()


app = FastAPI(lifespan=lifespan)


@app.get("/products/{name}")
async def look(name: str) -> dict[str, str]:
    return {"name": name}


@app.put("/products/{name}")
async def change(name: str, new: NewStock) -> Product:
    row = await update_asgi.pool.fetchrow(UPDATE, name, new.stock, str(uuid.uuid4()))
    if row is None:
        raise HTTPException(404)
    return Product(**row)

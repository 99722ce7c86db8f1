"""The catalogues of several trees, served side by side over HTTP, each with books of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.books import SEEDED
from benchmarks.servers import catalogue, serving, stored
from benchmarks.trees import Tree
from benchmarks.valkey import valkey
from benchmarks.workers import working
from tests.acceptance.serving import CatalogueServer


async def seed_as(tree: Tree, database: str, books: int, author_size: int = 0) -> None:
    """Makes the tables that this tree knows, with so many books."""
    async with working(tree, "seed") as worker:
        await worker.ask("seed", database=database, count=books, author_size=author_size)


async def serve_each(
    stack: contextlib.ExitStack, folder: Path, trees: Sequence[Tree], **options: Any
) -> dict[str, int]:
    """Starts them as ``start_each`` does; returns their ports."""
    started = await start_each(stack, folder, trees, **options)
    return {name: server.port for name, server in started.items()}


async def start_each(
    stack: contextlib.ExitStack,
    folder: Path,
    trees: Sequence[Tree],
    *,
    redis: bool,
    books: int = SEEDED,
    author_size: int = 0,
    workers: int = 1,
    cores: set[int] | None = None,
) -> dict[str, CatalogueServer]:
    """Starts them on SQLite, each with a Valkey of its own or none; returns them by the trees' names."""
    started = {}
    for tree in trees:
        database = f"sqlite:///{folder}/{tree.name}-{redis}-{books}-{author_size}-{workers}.db"
        await seed_as(tree, database, books, author_size)
        store = stack.enter_context(stored(valkey())).url if redis else "none"
        server = catalogue(database, store, workers=workers, tree=tree)
        stack.enter_context(serving(server, cores))
        started[tree.name] = server
    return started

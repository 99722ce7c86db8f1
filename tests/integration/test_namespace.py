"""Two applications, each with a database of its own, that share a Redis and a namespace by mistake."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest

from diptych import RebuildFailedError
from diptych.read.store.state import RedisState
from diptych.read.store.store import RedisStore
from tests.books import AddBook, BookReadModel
from tests.catalogue import author_of, catalogue, eventually, sees_in_redis


async def test_nobody_is_served_the_rows_of_another_database(tmp_path, valkey, caplog):
    """The one that came first goes on from Redis; the other is told what is wrong, and answers from SQL."""
    first, second = (f"sqlite:///{tmp_path}/{name}.db" for name in ("first", "second"))
    async with catalogue(first, valkey.url, lease_ms=5000) as one:
        await one.execute(AddBook("Dune", "of one"))
        await sees_in_redis(one, "Dune", "of one")
        with caplog.at_level(logging.ERROR, "diptych.hinge"):
            async with catalogue(second, valkey.url, lease_ms=5000) as two:
                await two.execute(AddBook("Dune", "of two"))

                async def is_told() -> bool:
                    return (await two.health()).read_models["BookReadModel"].detail == "other-database"

                await eventually(is_told, "health says what is wrong")
                stores, until = set(), time.monotonic() + 3
                while time.monotonic() < until:
                    for app, author in ((one, "of one"), (two, "of two")):
                        store, found = await author_of(app, "Dune")
                        assert found == author
                        stores.add((author, store))
                # On a busy machine a pass of the first may be late, and SQL answers for it in between.
                assert ("of one", "redis") in stores
                assert ("of two", "redis") not in stores
                with pytest.raises(RebuildFailedError, match="REDIS_NAMESPACE"):
                    await two.rebuild(BookReadModel)
        told = [record.getMessage() for record in caplog.records if "REDIS_NAMESPACE" in record.getMessage()]
        assert len(told) == 1
    # The first is gone: its lease runs out, and the other one has Redis for itself.
    async with catalogue(second, valkey.url, lease_ms=5000) as two:
        await sees_in_redis(two, "Dune", "of two")


async def test_a_builder_deletes_nothing_that_another_database_has_leased_since_it_looked(tmp_path, valkey):
    """★ Its readers would take what is deleted for rows that are not there."""
    first, second = (f"sqlite:///{tmp_path}/{name}.db" for name in ("first", "second"))
    async with catalogue(first, valkey.url, lease_ms=30_000) as one:
        await one.execute(AddBook("Dune", "of one"))
        await sees_in_redis(one, "Dune", "of one")
        two = catalogue(second, valkey.url)
        before_the_lease = RedisStore.inspect

        async def looking(self: RedisStore, generation: str) -> RedisState:
            return (await before_the_lease(self, generation))._replace(lease=b"")

        RedisStore.inspect = looking  # type: ignore[method-assign]
        try:
            async with two:
                for _ in range(100):
                    assert await author_of(one, "Dune") == ("redis", "of one")
                    assert (await author_of(two, "Dune")) == ("sql", None)
                    await asyncio.sleep(0.01)
        finally:
            RedisStore.inspect = before_the_lease  # type: ignore[method-assign]

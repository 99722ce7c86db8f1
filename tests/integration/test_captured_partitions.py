"""Partitions that the owner of a table adds, while an application serves whose role owns nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, ReadModel, code_point_text
from diptych.errors import SchemaError
from tests.captured import Program, application, prepare, same, served_by_redis
from tests.catalogue import answered_by
from tests.configuration import configured

LEASE_S = 1.0
PARTITIONED = (
    "DROP TABLE parts CASCADE",
    'CREATE TABLE parts (id bigint NOT NULL, code varchar(200) COLLATE "C" PRIMARY KEY, '
    "amount int DEFAULT 0 NOT NULL, maker_id bigint, whole_id bigint) PARTITION BY RANGE (code)",
    "CREATE TABLE parts_low PARTITION OF parts FOR VALUES FROM ('a') TO ('c')",
    "INSERT INTO parts (id, code, amount, maker_id) VALUES (1, 'a', 1, 1), (2, 'b', 2, 1)",
)
HIGH = "CREATE TABLE parts_high PARTITION OF parts FOR VALUES FROM ('c') TO ('n')"
GRANT = "GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON ALL TABLES IN SCHEMA public TO clerk"


class Base(DeclarativeBase):
    """The declarative base of an application over a table and its partition."""


class Whole(Base):
    """A partitioned table."""

    __tablename__ = "parts"

    code: Mapped[str] = mapped_column(code_point_text(200), primary_key=True)
    amount: Mapped[int]


class Low(Base):
    """Its partition."""

    __tablename__ = "parts_low"

    code: Mapped[str] = mapped_column(code_point_text(200), primary_key=True)
    amount: Mapped[int]


class AmountDocument(msgspec.Struct, frozen=True):
    amount: int


class WholeReads(ReadModel[Whole]):
    key = Whole.code
    document = AmountDocument


class LowReads(ReadModel[Low]):
    key = Low.code
    document = AmountDocument


class OfWhole:
    def __init__(self, whole: WholeReads) -> None:
        self.whole = whole


class OfLow:
    def __init__(self, low: LowReads) -> None:
        self.low = low


class OfBoth:
    def __init__(self, whole: WholeReads, low: LowReads) -> None:
        self.whole, self.low = whole, low


OfWhole.__module__ = OfLow.__module__ = OfBoth.__module__ = "holder"  # they handle no query of this module


@pytest.fixture
async def owner(postgres_url: str) -> AsyncIterator[Program]:
    """The owner of a partitioned table, which is captured."""
    program = await prepare(
        postgres_url, "DROP ROLE IF EXISTS clerk", "CREATE ROLE clerk LOGIN", *PARTITIONED
    )
    await program.runs(GRANT)
    async with application(postgres_url, None):
        pass
    yield program
    await program.runs("DROP OWNED BY clerk", "DROP ROLE clerk")


def _of_clerk(postgres_url: str, redis_url: str) -> Diptych:
    url = postgres_url.replace("postgres@", "clerk@")
    return application(url, redis_url, create_tables=False, lease_ms=int(LEASE_S * 1000))


@pytest.mark.parametrize(
    "statements",
    [
        [HIGH],
        [
            "CREATE TABLE parts_high (LIKE parts INCLUDING ALL)",
            "INSERT INTO parts_high (id, code) VALUES (3, 'c')",
            "ALTER TABLE parts ATTACH PARTITION parts_high FOR VALUES FROM ('c') TO ('n')",
        ],
        [
            "CREATE TABLE parts_all PARTITION OF parts FOR VALUES FROM ('c') TO ('z') PARTITION BY RANGE (code)",
            "CREATE TABLE parts_high PARTITION OF parts_all FOR VALUES FROM ('c') TO ('n')",
        ],
    ],
    ids=["made", "attached with rows", "with partitions"],
)
async def test_a_further_partition_is_captured_and_served(postgres_url, valkey, owner, statements):
    async with _of_clerk(postgres_url, valkey.url) as app:
        await served_by_redis(app)
        await owner.runs(*statements, GRANT)
        await asyncio.sleep(LEASE_S)
        await same(app)
        await served_by_redis(app)
        await owner.runs("INSERT INTO parts_high (id, code) VALUES (4, 'd')")
        await app.catch_up()
        await same(app, "d", store="redis")
        await owner.runs("TRUNCATE parts_high")
        await asyncio.sleep(LEASE_S)
        await same(app)
        await served_by_redis(app)


async def test_a_further_partition_whose_rows_are_not_captured_is_left_to_the_owner(
    postgres_url, valkey, owner
):
    async with _of_clerk(postgres_url, valkey.url) as app:
        await served_by_redis(app)
        await owner.runs(HIGH, GRANT, "ALTER TABLE parts_high DISABLE TRIGGER diptych_capture")
        await owner.runs("INSERT INTO parts (id, code) VALUES (4, 'd')")
        await asyncio.sleep(LEASE_S)
        await answered_by(app, "sql")
        await same(app, "d", store="sql")
        async with application(postgres_url, None):  # the owner makes the triggers anew
            pass
        await served_by_redis(app, "d")


SENTENCE = "rows of a partition are captured by the triggers of the partitioned table: make read models of "


@pytest.mark.parametrize("first", [(OfWhole, WholeReads), (OfLow, LowReads), None])
async def test_read_models_of_a_table_and_of_its_partition_are_refused(postgres_url, first):
    """Whichever is captured first, and in one application."""

    def of(handler: type, *read_models: type) -> Diptych:
        config = configured(postgres_url, create_tables=False)
        return Diptych(config, models=Base, handlers=[handler], read_models=list(read_models))

    await Program(postgres_url).runs("CREATE TABLE makers (id bigint)", "CREATE TABLE parts ()", *PARTITIONED)
    if first is not None:
        async with of(*first):
            pass
    with pytest.raises(SchemaError, match=SENTENCE) as error:
        await of(OfBoth, WholeReads, LowReads).start()
    assert "parts_low" in str(error.value)

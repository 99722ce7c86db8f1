"""A type is altered that a column's type is made of: no row is written, and every row has another value."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, Query, ReadModel
from tests.captured import Program
from tests.catalogue import answered_by
from tests.configuration import configured


class Base(DeclarativeBase):
    """The declarative base of the application."""


class Written(sa.types.TypeDecorator[str]):
    """A value of any type, as Python writes it."""

    impl = sa.Text
    cache_ok = True

    def process_result_value(self, value: Any, dialect: Any) -> str:
        return str(value)


class Mood(Base):
    """A row with a label of an enum somewhere in its value."""

    __tablename__ = "moods"

    id: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str] = mapped_column(Written)


class MoodDocument(msgspec.Struct, frozen=True):
    value: str


class MoodReadModel(ReadModel[Mood]):
    key = Mood.id
    document = MoodDocument


class GetMood(Query[Document[MoodDocument]], frozen=True):
    id: int


class MoodQueries:
    def __init__(self, moods: MoodReadModel) -> None:
        self.moods = moods

    async def get(self, query: GetMood) -> Document[MoodDocument]:
        return await self.moods.get(query.id)


LEASE_S = 1.0
_PAIR = "CREATE TYPE pair AS (number int, label label)"
RENAMED_LABEL = "ALTER TYPE label RENAME VALUE 'happy' TO 'glad'"


@pytest.mark.parametrize(
    ("types", "value", "change", "shows"),
    [
        ("CREATE DOMAIN mood AS label", "happy", RENAMED_LABEL, "glad"),
        ("CREATE DOMAIN mood AS label[]", "{happy}", RENAMED_LABEL, "glad"),
        ("CREATE DOMAIN part AS label; CREATE DOMAIN mood AS part[]", "{happy}", RENAMED_LABEL, "glad"),
        (f"{_PAIR}; CREATE DOMAIN mood AS pair[]", '{"(1,happy)"}', RENAMED_LABEL, "glad"),
        (
            f"{_PAIR}; CREATE DOMAIN mood AS pair",
            "(1,happy)",
            "ALTER TYPE pair ADD ATTRIBUTE more int",
            "more",
        ),
        ("CREATE TYPE mood AS RANGE (subtype = label)", "[happy,sad]", RENAMED_LABEL, "glad"),
        (
            "CREATE TYPE span AS RANGE (subtype = label, multirange_type_name = mood)",
            "{[happy,sad]}",
            RENAMED_LABEL,
            "glad",
        ),
    ],
    ids=["domain", "array", "array of a domain", "array of rows", "attribute added", "range", "ranges"],
)
async def test_a_type_within_a_columns_type_is_altered(postgres_url, valkey, types, value, change, shows):
    program = Program(postgres_url)
    await program.runs_each_alone(
        "CREATE TYPE label AS ENUM ('happy', 'sad')",
        *types.split("; "),
        f"CREATE TABLE moods AS SELECT 1 AS id, CAST('{value}' AS mood) AS value",
        "ALTER TABLE moods ADD PRIMARY KEY (id), ALTER value SET NOT NULL",
    )
    config = configured(postgres_url, valkey.url, create_tables=False, lease_ms=int(LEASE_S * 1000))
    app = Diptych(config, models=Base, handlers=[MoodQueries], read_models=[MoodReadModel])
    async with app:
        await answered_by(app, "redis")
        assert shows not in str((await app.ask(GetMood(1))).body)
        await program.runs(change)
        await asyncio.sleep(LEASE_S)
        await answered_by(app, "redis")  # asyncpg has to learn of the type meanwhile
        assert shows in str((await app.ask(GetMood(1))).body)

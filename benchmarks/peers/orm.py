"""The catalogue mapped by SQLAlchemy's ORM, for the peers that use it: a book, and its row of the change log."""

from __future__ import annotations

import datetime
import os
import uuid
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(sa.String(200), unique=True)
    author: Mapped[str] = mapped_column(sa.String(200), index=True)
    published_date: Mapped[datetime.date | None]
    isbn: Mapped[str | None] = mapped_column(sa.String(13), unique=True)
    stock_quantity: Mapped[int] = mapped_column(default=0)


class Change(Base):
    """The columns that a command fills in."""

    __tablename__ = "diptych_log"

    position: Mapped[int] = mapped_column(primary_key=True)
    table_name: Mapped[str]
    entity: Mapped[str]
    key: Mapped[str]
    old_key: Mapped[str | None]
    kind: Mapped[str]
    version: Mapped[int]
    image: Mapped[str]
    command_id: Mapped[str]
    correlation_id: Mapped[str | None]
    actor: Mapped[str | None]
    recorded_at: Mapped[datetime.datetime] = mapped_column(sa.DateTime(timezone=True))
    row_id: Mapped[str | None]
    old_row_id: Mapped[str | None]


def log_values(book: dict[str, Any]) -> dict[str, Any]:
    """The log row of a book that was added."""
    return {
        "table_name": "books",
        "entity": "Book",
        "key": _json({name: book[name] for name in ("id", "title", "isbn")}),
        "old_key": None,
        "kind": "created",
        "version": 1,
        "image": _json(book),
        "command_id": str(uuid.uuid4()),
        "correlation_id": None,
        "actor": None,
        "recorded_at": datetime.datetime.now(datetime.UTC),
        "row_id": str(book["id"]),
        "old_row_id": None,
    }


def _json(values: dict[str, Any]) -> str:
    return msgspec.json.encode(values).decode()


def open_database(**options: Any) -> AsyncEngine:
    """``DATABASE_URL``; a commit is on the disk when it is acknowledged, as with diptych."""
    engine = create_async_engine(os.environ["DATABASE_URL"], **options)
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine.sync_engine, "connect", _make_durable)
    return engine


def _make_durable(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()

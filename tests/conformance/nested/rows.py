"""Generated rows, and changes of them by commands, sessions, statements and programs that know nothing of diptych."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import sqlalchemy as sa

from diptych import Diptych
from tests.conformance.nested.oracle import Row, Tables
from tests.conformance.nested.tables import (
    LINKS,
    MODELS,
    Base,
    Book,
    Chapter,
    Cover,
    Credit,
    Note,
    Publisher,
    Seal,
    Section,
    Tag,
    Writer,
    book_marks,
    columns_of,
)
from tests.conformance.nested.values import UIDS, Values

IDS = range(1, 16)
AT_FIRST = {Publisher: 4, Tag: 6, Book: 9, Cover: 5, Chapter: 14, Section: 14, Writer: 5}
AT_FIRST |= {Credit: 12, Note: 10, Seal: 8}


class Rows(Values):
    """The rows of a database, and the next changes of them, the same for each database."""

    def __init__(self, chance: random.Random, app: Diptych) -> None:
        super().__init__(chance)
        self.app = app

    async def read(self) -> Tables:
        """All rows as they are, read without diptych's read models."""
        found: dict[str, Sequence[Row]] = {}
        async with self.app.orm.database.reader.connect() as connection:
            for table in Base.metadata.tables.values():
                rows = [dict(row) for row in (await connection.execute(sa.select(table))).mappings()]
                found[table.name] = sorted(rows, key=lambda row: [str(value) for value in row.values()])
        self.tables = found
        return found

    async def fill(self) -> None:
        await self.read()
        for model in MODELS:
            numbers = self.chance.sample(UIDS if model is Tag else IDS, AT_FIRST[model])
            made: list[dict[str, Any]] = []
            for number in numbers:
                self.tables = {**self.tables, model.__tablename__: made}
                made.append(self.row(model, number))
            await self.app.orm.create_all(model, made)
            await self.read()
        for _ in range(12):
            await self._link()
            await self.read()

    # Changes

    async def change(self) -> str:
        """Changes rows in some way, and returns its name."""
        ways: list[Callable[[], Any]] = [
            *(self._update, self._update, self._create, self._delete, self._link, self._link, self._move),
            *(self._replace, self._statement, self._foreign, self._foreign, self._several, self._swap),
        ]
        way = self.chance.choice(ways)
        await way()
        return way.__name__.strip("_")

    async def _update(self) -> None:
        model, number = self.some()
        if values := self.changed(model):
            await self.app.orm.update(model, number, "id", **values)

    async def _create(self) -> None:
        model = self.chance.choice(MODELS)
        every: Sequence[Any] = UIDS if model is Tag else IDS
        free = [number for number in every if number not in self.ids(model)]
        if not free:
            return
        values = self.row(model, self.chance.choice(free))
        if all(value is not None or columns_of(model)[name].nullable for name, value in values.items()):
            await self.app.orm.create(model, **values)

    async def _delete(self) -> None:
        model, number = self.some()
        await self.app.orm.delete(model, number, "id")

    async def _link(self) -> None:
        """Links a book and a tag, or ends a link; a link without a key may be there several times."""
        chance, table = self.chance, self.chance.choice(LINKS)
        rows = self.tables[table.name]
        if rows and chance.random() < 0.3:
            ended = chance.choice(rows)
            await self.app.orm.execute(
                sa.delete(table).where(*(table.c[name] == v for name, v in ended.items()))
            )
            return
        books, tags = self.ids(Book), self.ids(Tag)
        if not books or not tags:
            return
        pair = {"book_id": chance.choice(books), "tag_id": chance.choice(tags)}
        if table is book_marks and chance.random() < 0.2:
            pair[chance.choice(list(pair))] = None
        if table is book_marks or pair not in rows:
            await self.app.orm.execute(sa.insert(table).values(**pair))

    async def _move(self) -> None:
        """A session moves children from one parent to another."""
        books, chance = self.ids(Book), self.chance
        async with self.app.orm.session() as session:
            for model in chance.sample([Chapter, Note, Credit], 2):
                for number in chance.sample(self.ids(model), min(2, len(self.ids(model)))):
                    child: Any = await session.get(model, number)
                    child.book = await session.get(Book, chance.choice(books)) if books else child.book
            for number in chance.sample(books, min(2, len(books))):
                book: Any = await session.get(Book, number)
                book.sequel_to = await session.get(Book, chance.choice(books))

    async def _replace(self) -> None:
        """A session gives a book other collections: some of the rows are left without a book."""
        books, chance = self.ids(Book), self.chance
        if not books:
            return
        async with self.app.orm.session() as session:
            book: Any = await session.get(Book, chance.choice(books))
            for name, model in chance.sample([("chapters", Chapter), ("sequels", Book), ("tags", Tag)], 2):
                await session.refresh(book, [name])
                numbers = chance.sample(self.ids(model), min(chance.randint(0, 3), len(self.ids(model))))
                setattr(book, name, [await session.get(model, number) for number in numbers])

    async def _statement(self) -> None:
        """A statement changes any number of rows."""
        chance, column = self.chance, None
        model = chance.choice((Chapter, Section, Credit, Book, Note, Seal))
        name = chance.choice([n for n, c in columns_of(model).items() if not c.unique and not c.primary_key])
        column = getattr(model, name)
        value = self.value(model, name)
        if chance.random() < 0.15:
            await self.app.orm.execute(sa.delete(model).where(column == value))
        elif value is not None:
            other = getattr(model, chance.choice([n for n in columns_of(model) if n != name]))
            condition = other.is_(None) if chance.random() < 0.3 else other.is_not(None)
            await self.app.orm.execute(sa.update(model).where(condition).values({name: value}))

    async def _several(self) -> None:
        """Changes of one command."""
        async with self.app.orm.session() as session:
            for _ in range(self.chance.randint(2, 4)):
                model, number = self.some()
                row = await session.get(model, number)
                if row is not None:
                    for name, value in self.changed(model).items():
                        if not columns_of(model)[name].unique:
                            setattr(row, name, value)

    async def _swap(self) -> None:
        """Two books swap their codes, by which notes are linked; or two chapters their books, in one statement."""
        chance = self.chance
        if chance.random() < 0.5 and len(self.ids(Chapter)) > 1:
            one, other = chance.sample(self.ids(Chapter), 2)
            rows = {row["id"]: row["book_id"] for row in self.tables["chapters"]}
            # Typed, since PostgreSQL takes a CASE of nulls alone for a text.
            of_one, of_other = (sa.literal(rows[number], sa.Integer) for number in (one, other))
            swapped = sa.case((Chapter.id == one, of_other), else_=of_one)
            changed = sa.update(Chapter).where(Chapter.id.in_([one, other])).values(book_id=swapped)
            await self.app.orm.execute(changed)
        elif len(self.ids(Book)) > 1:
            one, other = chance.sample(self.ids(Book), 2)
            codes = {row["id"]: row["code"] for row in self.tables["books"]}
            await self._raw(
                f"UPDATE books SET code = 'between' WHERE id = {one}",
                f"UPDATE books SET code = '{_quoted(codes[one])}' WHERE id = {other}",
                f"UPDATE books SET code = '{_quoted(codes[other])}' WHERE id = {one}",
            )

    async def _foreign(self) -> None:
        """A program beside the application: it renames keys, deletes what others refer to, changes links."""
        chance = self.chance
        book, chapter, tag = (chance.choice(self.ids(model) or [0]) for model in (Book, Chapter, Tag))
        other = chance.choice(self.ids(Book) or [0])
        free = chance.choice(sorted(set(IDS) - set(self.ids(Book))))
        is_sqlite = self.app.orm.database.name == "sqlite"
        tag = tag if tag == 0 else tag.hex if is_sqlite else str(tag)
        statements = [
            f"UPDATE books SET id = {free} WHERE id = {book}",
            f"UPDATE books SET code = 'code {free}' WHERE id = {book}",
            f"UPDATE books SET uid = NULL WHERE id = {book}",
            f"DELETE FROM books WHERE id = {book}",
            f"DELETE FROM tags WHERE CAST(id AS TEXT) = '{tag}'",
            "UPDATE tags SET name = name || 'x' WHERE name < 'b'",
            f"UPDATE chapters SET book_id = NULL WHERE book_id = {book}",
            f"UPDATE chapters SET book_id = {other} WHERE book_id = {book}",
            f"UPDATE chapters SET id = id + 100 WHERE id = {chapter} AND id < 100",
            f"UPDATE sections SET chapter_id = {chapter}, size = 2" if chapter else "DELETE FROM sections",
            f"UPDATE credits SET book_id = {other} WHERE id % 2 = 0 AND {other} > 0",
            "UPDATE publishers SET id = id + 2000000000 WHERE id < 3",
            "DELETE FROM publishers WHERE id > 2",
            f"UPDATE book_marks SET book_id = {other} WHERE {other} > 0",
            "DELETE FROM book_marks",
            "DELETE FROM writers WHERE id < 4",
            "UPDATE chapters SET big = NULL, flag = NOT flag",
        ]
        await self._raw(*chance.sample(statements, chance.randint(1, 2)))

    async def _raw(self, *statements: str) -> None:
        """Executes these statements in a transaction of a program that knows nothing of diptych."""
        # In a thread: a wait for a lock would keep the application's transaction from ever ending.
        await asyncio.to_thread(_executed, self.app.orm.database.writer.url, statements)


def _executed(url: sa.URL, statements: Sequence[str]) -> None:
    if url.get_backend_name() == "sqlite":
        connection: Any = sqlite3.connect(str(url.database), timeout=20)
        connection.execute("PRAGMA foreign_keys = ON")
    else:
        plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(plain)
    try:
        with connection:
            for statement in statements:
                connection.execute(statement)
    finally:
        connection.close()


def _quoted(text: str) -> str:
    return text.replace("'", "''")

"""Lists with an entry for each element: the same pages from both stores, whatever happens to rows and links."""

from __future__ import annotations

import contextlib
import datetime
import random
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import msgspec
import pytest
import sqlalchemy as sa
from msgspec import Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from diptych import (
    Diptych,
    ReadModel,
    UnsupportedFilterError,
    between,
    by,
    code_point_text,
    each,
    join,
    starts_with,
)
from diptych.read.lists import semijoins
from diptych.read.lists.index import ListIndex
from tests.captured import Program
from tests.catalogue import answered_by, keeper_of
from tests.configuration import configured
from tests.conformance.pages import Shown, asked_of, selected_ids, walk


class Base(DeclarativeBase):
    pass


book_tags = sa.Table(
    "book_tags",
    Base.metadata,
    # Without a primary key: the same link may be there twice.
    sa.Column("book_id", sa.ForeignKey("books.id", ondelete="CASCADE", onupdate="CASCADE"), nullable=False),
    sa.Column("tag_id", sa.ForeignKey("tags.id", ondelete="CASCADE", onupdate="CASCADE"), nullable=False),
)


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    # The database's own collation, in which letters are in another order than their code points.
    name: Mapped[str | None] = mapped_column(sa.String(40))


class Part(Base):
    """An element of one book; found by a number, which may be null."""

    __tablename__ = "parts"

    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("books.id", ondelete="SET NULL", onupdate="CASCADE")
    )
    number: Mapped[int | None]
    made: Mapped[datetime.date | None]


class Shelf(Base):
    __tablename__ = "shelves"

    code: Mapped[str] = mapped_column(code_point_text(10), primary_key=True)
    room: Mapped[int]


class Book(Base):
    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(code_point_text(40))
    shelf: Mapped[str] = mapped_column(code_point_text(10))
    price: Mapped[int | None]
    tags: Mapped[list[Tag]] = relationship(secondary=book_tags)
    parts: Mapped[list[Part]] = relationship(passive_deletes=True)


class BookDocument(Struct, omit_defaults=True):
    id: int
    title: str
    room: int | None = None


class BookReadModel(ReadModel[Book]):
    key = Book.id
    document = BookDocument
    joined: ClassVar = {"room": join(Shelf.room, Book.shelf, Shelf.code)}
    lists = (
        by(Book.title),
        by(each(Book.tags, Tag.name), Book.title, name="tagged"),
        by(Book.shelf, each(Book.tags, Tag.name), Book.price.desc(), Book.title, name="shelved"),
        by(each(Book.parts, Part.number), Book.price.nulls_first(), name="parts", where=Book.price != 0),
        by(each(Book.tags, Tag.id), name="tag"),
        by(each(Book.parts, Part.made), name="made"),
        by(each(Book.tags, Tag.name), Shelf.room.desc(), name="rooms"),
    )


class Books:
    made: ClassVar[list[BookReadModel]] = []

    def __init__(self, books: BookReadModel) -> None:
        self.made.append(books)


NAMES = (None, "", "a", "ab", "é", "B", "\U0010ffff")


@contextlib.asynccontextmanager
async def application(database_url: str, redis_url: str | None = None) -> AsyncIterator[tuple[Diptych, Any]]:
    config = configured(database_url, redis_url)
    async with Diptych(config, models=Base, handlers=[Books], read_models=[BookReadModel]) as app:
        books, store = Books.made.pop(), "sql" if redis_url is None else "redis"

        async def page(*arguments: Any, **asked: Any) -> bytes:
            found = await books.page(*arguments, **asked)
            assert found.served.store == store, found.served
            return found.body

        yield app, page


async def placed(app: Diptych, index: ListIndex) -> list[dict[str, Any]]:
    """Every row once for each value of its elements, as a session finds them."""
    async with app.orm.session() as session:
        wanted = sa.select(Book).options(selectinload(Book.tags), selectinload(Book.parts))
        books = list(await session.scalars(wanted))
        rooms = {shelf.code: shelf.room for shelf in await session.scalars(sa.select(Shelf))}
    rows = []
    for book in books:
        row: dict[str, Any] = {name: getattr(book, name) for name in ("id", "title", "shelf", "price")}
        row["room"] = rooms.get(book.shelf)
        if index.name == "parts" and book.price in (0, None):
            continue
        if index.collection is None:
            rows.append(row)
            continue
        values = {getattr(one, index.collection.value) for one in getattr(book, index.collection.name)}
        rows += [{**row, index.collection.name: value} for value in values]
    return rows


class Changes:
    """Changes of books, elements and links, by sessions, by ORMService and by a program beside the application."""

    def __init__(self, app: Diptych, program: Program, chance: random.Random) -> None:
        self._app = app
        self._program = program
        self._chance = chance
        self._ways = [
            *(
                self._tag,
                self._untag,
                self._rename_tag,
                self._move_part,
                self._number_part,
                self._change_book,
            ),
            *(self._delete_book, self._add_book, self._delete_tag, self._beside, self._beside, self._beside),
        ]

    async def fill(self) -> None:
        await self._app.orm.create_all(Shelf, [{"code": "x", "room": 1}, {"code": "y", "room": 2}])
        for number in range(1, 6):
            await self._app.orm.create(Tag, id=number, name=self._chance.choice(NAMES))
        for number in range(1, 16):
            await self._add_book(number)
        for _ in range(40):
            await self._link()

    async def make(self) -> None:
        await self._chance.choice(self._ways)()

    def _number(self) -> int:
        return self._chance.randint(1, 15)

    async def _link(self) -> None:
        books = list((await self._app.orm.execute(sa.select(Book.id))).scalars())
        tags = list((await self._app.orm.execute(sa.select(Tag.id))).scalars())
        if books and tags:
            link = {"book_id": self._chance.choice(books), "tag_id": self._chance.choice(tags)}
            await self._app.orm.execute(sa.insert(book_tags).values(**link))

    async def _book(self, session: Any) -> Book | None:
        wanted = sa.select(Book).where(Book.id == self._number()).options(selectinload(Book.tags))
        book: Book | None = await session.scalar(wanted)
        return book

    async def _tag(self) -> None:
        async with self._app.orm.session() as session:
            book = await self._book(session)
            tag = await session.scalar(sa.select(Tag).where(Tag.id == self._chance.randint(1, 5)))
            if book is not None and tag is not None and tag not in book.tags:
                book.tags.append(tag)

    async def _untag(self) -> None:
        async with self._app.orm.session() as session:
            book = await self._book(session)
            if book is not None and book.tags:
                gone = {"book": book.id, "tag": book.tags[0].id}
                deleted = sa.delete(book_tags).where(book_tags.c.book_id == gone["book"])
                await session.execute(deleted.where(book_tags.c.tag_id == gone["tag"]))

    async def _rename_tag(self) -> None:
        await self._app.orm.update(Tag, self._chance.randint(1, 5), name=self._chance.choice(NAMES))

    async def _delete_tag(self) -> None:
        number = self._chance.randint(1, 5)
        await self._app.orm.delete(Tag, number)
        await self._app.orm.create(Tag, id=number, name=self._chance.choice(NAMES))
        await self._link()

    async def _move_part(self) -> None:
        books = list((await self._app.orm.execute(sa.select(Book.id))).scalars())
        await self._app.orm.update(
            Part, self._chance.randint(1, 20), book_id=self._chance.choice([None, *books])
        )

    async def _number_part(self) -> None:
        number = self._chance.choice([None, 1, 2])
        await self._app.orm.upsert(Part, conflict_on=Part.id, id=self._chance.randint(1, 20), number=number)

    async def _change_book(self) -> None:
        values: dict[str, Any] = {
            "shelf": self._chance.choice("xy"),
            "price": self._chance.choice([None, 0, 1, 2]),
        }
        await self._app.orm.update(Book, self._number(), **values)

    async def _delete_book(self) -> None:
        await self._app.orm.delete(Book, self._number())

    async def _add_book(self, number: int | None = None) -> None:
        number = self._number() if number is None else number
        values = {"shelf": self._chance.choice("xy"), "price": self._chance.choice([None, 0, 1, 2])}
        await self._app.orm.upsert(Book, conflict_on=Book.id, id=number, title=f"b{number * 7 % 5}", **values)
        if await self._app.orm.get(Part, number) is None:
            await self._app.orm.create(
                Part, id=number, book_id=number, number=self._chance.choice([None, 1, 2])
            )

    async def _beside(self) -> None:
        book, tag, other = self._number(), self._chance.randint(1, 5), self._number()
        statements = (
            "UPDATE tags SET name = 'ab' WHERE id = {tag}",
            "UPDATE shelves SET room = room + 1 WHERE code = 'x'",
            "DELETE FROM shelves WHERE code = 'y'",
            "UPDATE tags SET name = NULL WHERE name = 'ab'",
            "DELETE FROM book_tags WHERE tag_id = {tag}",
            "INSERT INTO book_tags SELECT books.id, tags.id FROM books, tags WHERE books.id = {book}",
            "UPDATE book_tags SET book_id = {book} WHERE book_id = {other}"
            " AND EXISTS (SELECT 1 FROM books WHERE id = {book})",
            "UPDATE books SET id = id + 100 WHERE id = {book}",
            "UPDATE books SET id = id - 100 WHERE id = {book} + 100"
            " AND NOT EXISTS (SELECT 1 FROM books WHERE id = {book})",
            "UPDATE parts SET number = number + 1 WHERE book_id = {book}",
            "DELETE FROM parts WHERE book_id = {book}",
            "DELETE FROM books WHERE id = {book}",
        )
        await self._program.runs(self._chance.choice(statements).format(book=book, tag=tag, other=other))
        await self._app.catch_up()


def _filter_of(chance: random.Random, index: ListIndex) -> dict[str, Any]:
    where: dict[str, Any] = {}
    if index.collection is not None:
        by_column = {"name": NAMES, "number": (None, 1, 2, 3), "id": (1, 2, 3), "made": (None,)}
        where[index.collection.name] = chance.choice(by_column[index.collection.value])
    if index.name == "shelved":
        where["shelf"] = chance.choice("xy")
        where |= chance.choice([{}, {"price": [1, 2, None]}, {"price": between(1, None)}])
    if index.name == "rooms":
        where |= chance.choice([{}, {"room": 1}, {"room": [1, 2, None]}])
    if index.name == "tagged":
        where |= chance.choice([{}, {"title": "b1"}, {"title": between("b1", "b3")}])
    return where


@pytest.mark.parametrize("seed", range(2))
async def test_both_stores_give_the_pages_that_python_selects(database_url, valkey, seed):
    chance = random.Random(seed)
    async with application(database_url, valkey.url) as (app, redis), application(database_url) as (_, sql):
        changes = Changes(app, Program(database_url), chance)
        await changes.fill()
        await answered_by(app, "redis")
        indexes = keeper_of(app).replica.compiled.lists
        for turn in range(60):
            index = chance.choice(indexes)
            where = _filter_of(chance, index)
            asked = asked_of(chance, where)
            told = (turn, index.name, where, asked)

            async def page(index: ListIndex = index, where: Any = where, **asked: Any) -> Shown:
                bodies = [await route(index.name, where=where, **asked) for route in (redis, sql)]
                assert bodies[0] == bodies[1], (index.name, where, asked)
                return msgspec.json.decode(bodies[0], type=Shown)

            await walk(page, selected_ids(await placed(app, index), index, where), asked, told)
            await changes.make()


async def _filled(app: Diptych) -> None:
    """Three books: two of the tag "sf", one of them of "sf" twice and of a link that is there twice."""
    async with app.orm.session() as session:
        tags = [Tag(id=1, name="sf"), Tag(id=2, name="sf"), Tag(id=3, name="war"), Tag(id=4, name=None)]
        session.add_all(tags)
        session.add(Book(id=1, title="a", shelf="x", tags=tags[:2]))
        session.add(Book(id=2, title="b", shelf="x", tags=[tags[0], tags[2]], parts=[Part(id=1, number=7)]))
        session.add(Book(id=3, title="c", shelf="y", tags=tags[2:], parts=[Part(id=2), Part(id=3, number=7)]))
        await session.flush()
        await session.execute(sa.insert(book_tags), [{"book_id": 1, "tag_id": 1}])


async def _ids(routes: Any, name: str, **asked: Any) -> list[int]:
    """The ids of a page, the same from each route."""
    bodies = [await route(name, **asked) for route in routes]
    assert len(set(bodies)) == 1, bodies
    return msgspec.json.decode(bodies[0], type=Shown).ids


@contextlib.asynccontextmanager
async def both(database_url: str, redis_url: str) -> AsyncIterator[tuple[Diptych, list[Any]]]:
    """An application, and the routes to its pages: by Redis and by SQL."""
    async with application(database_url, redis_url) as (app, redis), application(database_url) as (_, sql):
        await _filled(app)
        await answered_by(app, "redis")
        yield app, [redis, sql]


async def test_a_row_is_there_once_however_many_elements_have_the_value(database_url, valkey):
    async with both(database_url, valkey.url) as (app, routes):
        page = await routes[0]("tagged", where={"tags": "sf"}, count=True)
        assert page == b'{"items":[{"id":1,"title":"a"},{"id":2,"title":"b"}],"next":null,"total":2}'
        assert page == await routes[1]("tagged", where={"tags": "sf"}, count=True)
        order = by(each(Book.tags, Tag.name), Book.title)  # by its order, in place of its name
        assert page == await routes[0](order, where={"tags": "sf"}, count=True)
        # One of the three links is left.
        one = (book_tags.c.book_id == 1) & (book_tags.c.tag_id == 1)
        await app.orm.execute(sa.delete(book_tags).where(one))
        assert await _ids(routes, "tagged", where={"tags": "sf"}) == [1, 2]
        await app.orm.update(Tag, 2, name="war")
        assert await _ids(routes, "tagged", where={"tags": "sf"}) == [2]
        assert await _ids(routes, "tagged", where={"tags": "war"}) == [1, 2, 3]
        await app.orm.delete(Tag, 3)
        assert await _ids(routes, "tagged", where={"tags": "war"}) == [1]


async def test_null_is_a_value_of_an_element_and_no_element_is_none(database_url, valkey):
    async with both(database_url, valkey.url) as (app, routes):
        assert await _ids(routes, "tagged", where={"tags": None}) == [3]
        await app.orm.update(Tag, 4, name="new")
        assert await _ids(routes, "tagged", where={"tags": None}) == []
        assert await _ids(routes, "tagged", where={"tags": "new"}) == [3]
        assert await _ids(routes, "tagged", where={"tags": "\x00"}) == []
        assert await _ids(routes, "tag", where={"tags": 2**80}) == []
        await app.orm.update(Book, 2, price=1)
        await app.orm.update(Book, 3, price=1)
        assert await _ids(routes, "parts", where={"parts": 7}) == [2, 3]
        assert await _ids(routes, "parts", where={"parts": None}) == [3]


async def test_an_element_moves_to_another_row(database_url, valkey):
    async with both(database_url, valkey.url) as (app, routes):
        for number in (1, 2, 3):
            await app.orm.update(Book, number, price=1)
        await app.orm.update(Part, 1, book_id=1)
        assert await _ids(routes, "parts", where={"parts": 7}) == [1, 3]
        async with app.orm.session() as session:
            book = await session.get_one(Book, 2, options=[selectinload(Book.parts)])
            book.parts.append(await session.get_one(Part, 3))
        assert await _ids(routes, "parts", where={"parts": 7}) == [1, 2]
        await app.orm.delete(Book, 2)  # its parts are nobody's then
        assert await _ids(routes, "parts", where={"parts": 7}) == [1]
        await app.orm.delete(Part, 1)
        assert await _ids(routes, "parts", where={"parts": 7}) == []


async def test_a_cursor_of_another_value_shows_none_of_its_rows(database_url, valkey):
    async with both(database_url, valkey.url) as (_, routes):
        for route in routes:
            body = await route("tagged", where={"tags": "sf"}, limit=1)
            cursor = msgspec.json.decode(body, type=Shown).next
            found = await route("tagged", where={"tags": "war"}, after=cursor, count=True)
            shown = msgspec.json.decode(found, type=Shown)
            assert (shown.ids, shown.total) == ([2, 3], 2)


@pytest.mark.parametrize(
    "where",
    [
        None,
        {},
        {"title": "a"},
        {"tags": ["sf", "war"]},
        {"tags": between("a", "z")},
        {"tags": starts_with("s")},
        {"title": "a", "tags": "sf", "shelf": "x"},
    ],
)
async def test_a_page_without_one_value_is_refused(database_url, where):
    async with application(database_url) as (_, page):
        with pytest.raises(UnsupportedFilterError, match=r"tagged can't serve \(it needs one value of tags"):
            await page("tagged", where=where)
        with pytest.raises(UnsupportedFilterError, match="one value of shelf and one of tags"):
            await page("shelved", where={"tags": "sf"})
        with pytest.raises(UnsupportedFilterError, match="these lists can: tagged, tag"):
            await page("title", where={"tags": "sf"})


async def test_many_elements_are_read_in_parts(database_url, valkey, monkeypatch):
    monkeypatch.setattr(semijoins, "_MOST_VALUES", 3)
    async with both(database_url, valkey.url) as (app, routes):
        await app.orm.create_all(Tag, [{"id": number, "name": f"t{number}"} for number in range(10, 2010)])
        of_books = (
            sa.select(Book.id, Tag.id).join_from(Book, Tag, sa.true()).where(Book.id != 3, Tag.id >= 10)
        )
        await app.orm.execute(sa.insert(book_tags).from_select(["book_id", "tag_id"], of_books))
        for name in ("t10", "t1234", "t2009"):
            assert await _ids(routes, "tagged", where={"tags": name}) == [1, 2]
        await app.rebuild(BookReadModel)
        assert await _ids(routes, "tagged", where={"tags": "t2009"}) == [1, 2]
        await app.orm.execute(sa.delete(book_tags).where(book_tags.c.book_id == 1))
        assert await _ids(routes, "tagged", where={"tags": "t2009"}) == [2]


async def test_an_element_that_cannot_be_read_has_no_entry(database_url, valkey):
    """And its row keeps its document: the document has nothing of it."""
    async with both(database_url, valkey.url) as (app, routes):
        nonsense = "'0044-03-15 BC'" if app.orm.database.name == "postgresql" else "'nonsense'"
        await app.orm.execute(sa.text(f"UPDATE parts SET made = {nonsense} WHERE id = 3"))
        await app.orm.execute(sa.text("UPDATE parts SET made = '2026-01-01' WHERE id <> 3"))
        day = datetime.date(2026, 1, 1)
        assert await _ids(routes, "made", where={"parts": day}) == [2, 3]
        assert await _ids(routes, "title") == [1, 2, 3]


class Link(Base):
    """An association that is mapped, by which books are linked to themselves."""

    __tablename__ = "links"

    id: Mapped[int] = mapped_column(primary_key=True)
    one: Mapped[str] = mapped_column(sa.ForeignKey("nodes.code"))
    other: Mapped[str] = mapped_column(sa.ForeignKey("nodes.code"))


class Node(Base):
    """Linked to others of its kind, many to many, and below another one."""

    __tablename__ = "nodes"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(sa.String(20), unique=True)
    parent_id: Mapped[int | None] = mapped_column(sa.ForeignKey("nodes.id"))
    children: Mapped[list[Node]] = relationship()
    friends: Mapped[list[Node]] = relationship(
        secondary="links",
        primaryjoin=lambda: Node.code == Link.one,
        secondaryjoin=lambda: Node.code == Link.other,
    )


class NodeDocument(Struct):
    id: int


class NodeReadModel(ReadModel[Node]):
    key = Node.id
    document = NodeDocument
    lists = (by(each(Node.children, Node.code)), by(each(Node.friends, Node.code), Node.id.desc()))


class Nodes:
    made: ClassVar[list[NodeReadModel]] = []

    def __init__(self, nodes: NodeReadModel) -> None:
        self.made.append(nodes)


async def test_elements_may_be_of_the_same_class(database_url, valkey):
    """By a mapped association, whose rows ORMService changes as any others."""

    def nodes(redis_url: str | None) -> Diptych:
        config = configured(database_url, redis_url)
        return Diptych(config, models=Base, handlers=[Nodes], read_models=[NodeReadModel])

    async with nodes(valkey.url) as app, nodes(None):
        sql, redis = Nodes.made.pop(), Nodes.made.pop()
        for number, parent in ((1, None), (2, 1), (3, 1), (4, 3)):
            await app.orm.create(Node, id=number, code=f"n{number}", parent_id=parent)
        await answered_by(app, "redis")

        async def shown(name: str, value: str) -> list[int]:
            pages = [await route.page(name, where={name.split(",")[0]: value}) for route in (redis, sql)]
            assert [page.served.store for page in pages] == ["redis", "sql"]
            assert pages[0].body == pages[1].body
            return msgspec.json.decode(pages[0].body, type=Shown).ids

        assert await shown("children", "n3") == [1]
        await app.orm.update(Node, 3, parent_id=2)
        assert await shown("children", "n3") == [2]
        await app.orm.update(Node, 3, code="x")
        assert [await shown("children", code) for code in ("n3", "x")] == [[], [2]]
        await app.orm.create(Link, id=1, one="n1", other="n2")
        await app.orm.create(Link, id=2, one="n4", other="n2")
        assert await shown("friends,id", "n2") == [4, 1]
        await app.orm.update(Link, 1, other="x")
        assert [await shown("friends,id", code) for code in ("n2", "x")] == [[4], [1]]
        await app.orm.delete(Link, 2)
        assert await shown("friends,id", "n2") == []

"""Keys of several columns, and second addresses of documents: both routes find the same, and no more."""

from __future__ import annotations

import datetime
import uuid
from typing import Any

import httpx
import msgspec
import pytest
import redis
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import (
    ConfigService,
    Diptych,
    Document,
    InvalidMessage,
    Query,
    ReadModel,
    WiringError,
    by,
    code_point_text,
)
from diptych.http import query_app
from diptych.read.address_checks import UNIQUE
from tests.addressed import (
    GetSeat,
    GetSeatByCode,
    OwnedSeats,
    Owner,
    Seat,
    Seats,
    answers,
    read_models,
    seating,
    seats_of,
)
from tests.catalogue import Recorded, answered_by, eventually, redis_side_of, stop_keeper
from tests.configuration import configured


@pytest.fixture
def redis_url(valkey):
    """One kind is enough: what is stored is the same."""
    return valkey.url


def keys_of(redis_url: str, pattern: str) -> list[bytes]:
    with redis.Redis.from_url(redis_url) as client:
        keys: Any = client.keys(pattern)
        return list(keys)


# Finding


async def test_both_routes_find_a_document_at_each_of_its_addresses_with_the_same_bytes(
    database_url, redis_url
):
    async with seating(database_url, redis_url) as app, seating(database_url) as sql:
        await answered_by(app, "redis")
        await app.orm.create(Owner, name="Ann")
        await app.orm.create(Seat, room="A", number=7, code="x", badge=5, guest="Emma", owner_id=1)
        await app.orm.create(Seat, room="A", number=70, guest="Ida")
        body = b'{"room":"A","number":7,"code":"x","guest":"Emma"}'
        owned = b'{"id":1,"code":"x","guest":"Emma","owner":"Ann"}'
        for store, seats, joined in (("redis", *read_models(app)), ("sql", *read_models(sql))):
            for found in (
                await seats.get(("A", 7)),
                await seats.get(("A", "7")),
                await seats.get(code="x"),
                await seats.get(badge=5),
                await seats.get(badge="5"),
            ):
                assert (found.served.store, found.body) == (store, body)
            for found in (await joined.get(1), await joined.get(code="x")):
                assert (found.served.store, found.body) == (store, owned)
            for key, also in (
                (("A", 8), {}),
                (("A", 707), {}),
                (("A7", 0), {}),
                (("A", None), {}),
                ((None, 7), {}),
                (("A", "seven"), {}),
                (("A", 2**40), {}),
                (("A\x00", 7), {}),
                (msgspec.UNSET, {"code": "y"}),
                (msgspec.UNSET, {"code": None}),
                (msgspec.UNSET, {"code": "X"}),
                (msgspec.UNSET, {"code": "A"}),
                (msgspec.UNSET, {"badge": 7}),
                (msgspec.UNSET, {"badge": "x"}),
                (msgspec.UNSET, {"badge": 2**40}),
            ):
                assert (await seats.get(key, **also)).body is None, (store, key, also)


async def test_a_document_at_a_second_address_takes_one_command_to_redis(database_url, redis_url):
    async with seating(database_url, redis_url) as app:
        await answered_by(app, "redis")
        await app.orm.create(Seat, room="A", number=7, code="x")
        seats, _ = read_models(app)
        await seats.get(code="x")
        reads = Recorded(redis_side_of(app).source(Seats)._reads, "documents")
        channel = redis_side_of(app).service.channel
        assert channel is not None
        sent = Recorded(channel, "send")
        assert (await seats.get(code="x")).served.store == "redis"
        assert (len(reads.calls), len(sent.calls)) == (1, 1)


@pytest.mark.parametrize("has_redis", [True, False])
async def test_a_key_of_another_shape_is_refused_in_words(database_url, redis_url, has_redis):
    """Nothing is a key by accident: neither a text of two letters, nor a list."""
    async with seating(database_url, redis_url if has_redis else None) as app:
        seats, owned = read_models(app)
        words = "TypeError: the key of Seats is of 2 columns: get((room, number)), a tuple of their values"
        for key in ("A7", 7, None, ("A",), ("A", 7, 1), (), ["A", 7], {"room": "A", "number": 7}):
            assert await answers(seats, key) == words, key
        with pytest.raises(
            TypeError,
            match="get of Seats takes the key, or one column of `also` by its name, not code, badge together",
        ):
            seats.get(code="x", badge=5)
        with pytest.raises(TypeError, match="not the key, code together"):
            seats.get(("A", 7), code="x")
        with pytest.raises(
            TypeError, match=r"get of OwnedSeats takes the key, or one column of `also` by its name$"
        ):
            owned.get()
        with pytest.raises(
            WiringError,
            match="OwnedSeats has no documents by 'badge': add the unique column to `also` of OwnedSeats",
        ):
            owned.get(badge=5)


async def test_a_key_of_two_columns_is_two_parameters_of_a_path(database_url, redis_url):
    async with seating(database_url, redis_url, joined=False) as app:
        await answered_by(app, "redis")
        await app.orm.create(Seat, room="A/1", number=7, code="x y", guest="Emma")
        routes: dict[str, Any] = {"/rooms/{room}/seats/{number:int}": GetSeat, "/seats/{code}": GetSeatByCode}
        transport = httpx.ASGITransport(query_app(app, routes))
        async with httpx.AsyncClient(transport=transport, base_url="http://seats") as client:
            for path in ("/rooms/A%2F1/seats/7", "/seats/x%20y"):
                answer = await client.get(path)
                assert (answer.status_code, answer.headers["cache-status"]) == (200, "diptych; hit"), path
                assert answer.content == b'{"room":"A/1","number":7,"code":"x y","guest":"Emma"}'
            for path in ("/rooms/A%2F1/seats/8", "/rooms/A%2F1/seats/9223372036854775808", "/seats/x"):
                assert (await client.get(path)).status_code == 404, path


# Moving


async def test_a_change_of_one_column_of_the_key_moves_the_document(database_url, redis_url):
    """The keeper is stopped: what is seen is what the command has brought to Redis."""
    async with (
        seating(database_url, redis_url, joined=False, lease_ms=60_000) as app,
        seating(database_url) as sql,
    ):
        await answered_by(app, "redis")
        await stop_keeper(app)
        seats = seats_of(app)
        for number in (1, 2):
            await app.orm.create(Seat, room="A", number=number, code=f"c{number}", badge=number)
        await app.orm.update(Seat, 1, number=3)
        await app.orm.update(Seat, 2, room="B", code=None, badge=9)
        asked: list[tuple[Any, dict[str, Any]]] = [
            *(((room, number), {}) for room in "AB" for number in (1, 2, 3)),
            *((msgspec.UNSET, {"code": code}) for code in ("c1", "c2")),
            *((msgspec.UNSET, {"badge": badge}) for badge in (1, 2, 9)),
        ]
        found = []
        for key, also in asked:
            here, there = await seats.get(key, **also), await seats_of(sql).get(key, **also)
            assert (here.served.store, here.body) == ("redis", there.body), (key, also)
            found.append(here.body is not None)
        assert found == [False, False, True, False, True, False, True, False, True, False, True]
        page = await seats.page()
        assert page.served.store == "redis"
        assert page.body == (await seats_of(sql).page()).body


async def test_two_rows_swap_their_second_addresses(database_url, redis_url):
    async with seating(database_url, redis_url) as app:
        await answered_by(app, "redis")
        seats, owned = read_models(app)
        for number in (1, 2):
            await app.orm.create(Seat, room="A", number=number, code=f"c{number}", guest=f"g{number}")
        async with app.orm.session() as session:
            first, second = await session.scalars(sa.select(Seat).order_by(Seat.id))
            for seat, code in ((first, None), (second, "c1"), (first, "c2")):
                seat.code = code
                await session.flush()
        for code, guest in (("c1", "g2"), ("c2", "g1")):
            for model in (seats, owned):
                found = await model.get(code=code)
                assert (found.decode().guest, found.decode().code) == (guest, code)
                assert found.served.store == "redis"


async def test_a_build_and_a_pass_write_every_address(database_url, redis_url):
    async with seating(database_url) as sql:
        await sql.orm.create(Seat, room="A", number=1, code="c1", badge=1)
    async with seating(database_url, redis_url) as app:
        await answered_by(app, "redis")
        seats, owned = read_models(app)
        for found in (await seats.get(("A", 1)), await seats.get(code="c1"), await seats.get(badge=1)):
            assert found.served.store == "redis"
            assert found.decode().code == "c1"
        assert (await owned.get(code="c1")).decode().id == 1
        await app.rebuild(Seats)
        await app.rebuild(OwnedSeats)
        assert (await seats.get(badge=1)).decode().code == "c1"


async def test_the_tombstone_of_a_second_address_goes_as_others_do(database_url, redis_url):
    async with seating(database_url, redis_url, lease_ms=300) as app:
        await answered_by(app, "redis")
        await app.orm.create(Seat, room="A", number=1, code="c1", badge=1)
        await app.orm.update(Seat, 1, code=None)
        await app.orm.delete(Seat, 1)

        async def none_is_left() -> bool:
            return not keys_of(redis_url, "*:d:*")

        await eventually(none_is_left, "no document and no tombstone is left")


async def test_what_is_swept_has_copies_too(database_url, redis_url):
    """A generation that is replaced leaves nothing of its second addresses."""
    async with seating(database_url, redis_url) as app:
        await answered_by(app, "redis")
        await app.orm.create(Seat, room="A", number=1, code="c1", badge=1)
        await app.rebuild(Seats)
        assert len(keys_of(redis_url, "*:Seats:*:d:*")) == 3


# Rows that do not fit


async def test_a_row_that_is_set_aside_is_so_at_each_address_and_counts_once(database_url, redis_url):
    async with seating(database_url, redis_url) as app, seating(database_url) as sql:
        await answered_by(app, "redis")
        await app.orm.create(Seat, room="A", number=1, code="c1", badge=1, guest="longer than ten")
        for seats in (read_models(app)[0], read_models(sql)[0]):
            for key, also, told in (
                (("A", 1), {}, "('A', 1)"),
                (msgspec.UNSET, {"code": "c1"}, "'c1'"),
                (msgspec.UNSET, {"badge": 1}, "1"),
            ):
                assert await answers(seats, key, **also) == (
                    f"UnreadableRowError: the row of seats with the key {told} can't be shown: guest must have at "
                    "most 10 characters; change the row, or what it is read into"
                )
            assert (await seats.page()).set_aside == 1
        health = (await app.health()).read_models["Seats"]
        assert health.set_aside == 1
        assert [(row.table, row.key, row.field) for row in health.set_aside_rows] == [
            ("seats", '["A",1]', "guest")
        ]
        await app.orm.update(Seat, 1, guest="short")
        assert (await read_models(app)[0].get(code="c1")).decode().guest == "short"
        assert (await app.health()).read_models["Seats"].set_aside == 0


async def test_a_value_that_is_longer_than_its_column_is_found_where_the_database_holds_it(
    sqlite_url, redis_url
):
    """SQLite enforces neither the length of a text nor the size of a whole number."""
    long, large = "x" * 30, 2**40
    async with seating(sqlite_url, redis_url, joined=False) as app, seating(sqlite_url) as sql:
        await answered_by(app, "redis")
        columns, values = "id, room, number, code, badge, guest", "1, :long, :large, :long, :large, 'Emma'"
        insert = sa.text(f"INSERT INTO seats ({columns}) VALUES ({values})")
        await app.orm.execute(insert, {"long": long, "large": large})
        for store, seats in (("redis", seats_of(app)), ("sql", seats_of(sql))):
            for found in (
                await seats.get((long, large)),
                await seats.get(code=long),
                await seats.get(badge=large),
            ):
                assert (found.served.store, found.decode().guest) == (store, "Emma")
            assert len((await seats.page()).decode().items) == 1


# Lists


async def test_rows_equal_in_a_list_are_in_the_order_of_all_columns_of_the_key(database_url, redis_url):
    places = [("A", 2), ("B", 1), ("A", 10), ("A", 1), ("B", 0)]
    async with seating(database_url, redis_url) as app, seating(database_url) as sql:
        await answered_by(app, "redis")
        for room, number in places:
            await app.orm.create(Seat, room=room, number=number, guest="same")
        for order, expected in (
            (by(Seat.guest), sorted(places)),
            (by(Seat.number), sorted(places, key=lambda place: (place[1], place[0]))),
        ):
            pages = []
            for seats in (read_models(app)[0], read_models(sql)[0]):
                after, bodies, listed = None, list[bytes](), list[Any]()
                while after is not None or not bodies:
                    page = await seats.page(order, limit=2, after=after)
                    bodies.append(page.body)
                    listed += [(item.room, item.number) for item in page.decode().items]
                    after = page.decode().next
                assert listed == expected
                pages.append(bodies)
            assert pages[0] == pages[1]
        with pytest.raises(InvalidMessage, match="is not a cursor that this list has given"):
            await read_models(app)[0].page(by(Seat.number), after=page.decode().next or "AAAA")


# Values of each kind


class Kinds(DeclarativeBase):
    pass


class Part(Kinds):
    __tablename__ = "parts"

    name: Mapped[str] = mapped_column(code_point_text(), primary_key=True)
    day: Mapped[datetime.date] = mapped_column(primary_key=True)
    code: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    serial: Mapped[int] = mapped_column(sa.BigInteger, primary_key=True, autoincrement=False)
    tag: Mapped[str | None] = mapped_column(sa.Uuid(as_uuid=False), unique=True)
    note: Mapped[int] = mapped_column(default=0)


class PartDocument(msgspec.Struct):
    note: int


class Parts(ReadModel[Part]):
    key = (Part.name, Part.day, Part.code, Part.serial)
    also = (Part.tag,)
    document = PartDocument
    lists = (by(Part.day),)


class GetPart(Query[Document[PartDocument]]):
    key: Any


class PartQueries:
    def __init__(self, parts: Parts) -> None:
        self.parts = parts

    async def get(self, query: GetPart) -> Document[PartDocument]:
        return await self.parts.get(query.key)


async def test_no_two_keys_share_a_document_whatever_is_in_their_texts(database_url, redis_url):
    names = ["", " ", '"', '",', "a", 'a",', "[", "]", "1", "é", "𝔄", "\\", "\\u0061", "\n", "\x7f", "a:b"]
    day, code = datetime.date(2024, 2, 29), uuid.UUID(int=5)
    config = configured(database_url, redis_url, lease_ms=30_000)
    async with Diptych(config, models=Kinds, handlers=[PartQueries], read_models=[Parts]) as app:
        await answered_by(app, "redis")
        keys = [(name, day, code, serial) for name in names for serial in (-(2**63), 1, 2**63 - 1)]
        rows = [
            dict(zip(("name", "day", "code", "serial"), key, strict=True)) | {"note": note}
            for note, key in enumerate(keys)
        ]
        await app.orm.create_all(Part, rows)
        for note, key in enumerate(keys):
            found = await app.ask(GetPart(key))
            assert (found.served.store, found.decode()) == ("redis", PartDocument(note)), key
        found = await app.ask(GetPart(("a", "2024-02-29", str(code).upper(), "1")))
        assert found.decode() is not None
        handler: Any = app._run.bus.handler_of(GetPart)
        for tag in (str(uuid.UUID(int=2**127)), str(uuid.UUID(int=0xABC << 116))):
            async with app.orm.session() as session:
                part: Any = await session.get(Part, ("a", day, code, 1))
                part.tag = tag.upper()
            found = await handler.__self__.parts.get(tag=uuid.UUID(tag).hex)
            assert found.served.store == "redis"
            # SQLite compares letters, and finds no other row by their usual form.
            is_elsewhere = tag != tag.upper() and database_url.startswith("sqlite")
            assert (found.body is None) == is_elsewhere
        await app.orm.execute(sa.update(Part).values(tag=None))
        assert not await handler.__self__.parts.get(tag=tag)


# What is refused at start


def refused(database_url: str, **declared: Any) -> Any:
    model = type("Faulty", (ReadModel,), {"document": SeatNumber, **declared})
    config = ConfigService(environ={}, database_url=database_url)
    return Diptych(config, models=Odd, handlers=[], read_models=[model])


class Odd(DeclarativeBase):
    pass


class OddSeat(Odd):
    __tablename__ = "odd_seats"
    __table_args__ = (
        sa.UniqueConstraint("room", "number", deferrable=True, initially="DEFERRED"),
        sa.UniqueConstraint("row", "number", "floor"),
        sa.Index("one_shelf", "shelf", "number", unique=True, sqlite_where=sa.text("number > 0"),
                 postgresql_where=sa.text("number > 0")),
        sa.UniqueConstraint("late", deferrable=True),
        sa.UniqueConstraint("floor", "wing"),
        sa.UniqueConstraint("floor", "ratio"),
    )  # fmt: skip

    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[int]
    number: Mapped[int]
    row: Mapped[int]
    floor: Mapped[int]
    shelf: Mapped[int]
    wing: Mapped[int | None]
    ratio: Mapped[float]
    height: Mapped[int]
    late: Mapped[int]
    code: Mapped[int | None] = mapped_column(unique=True)
    weight: Mapped[float | None] = mapped_column(unique=True)


class SeatNumber(msgspec.Struct):
    number: int


TOGETHER = (
    "must be unique together: by a primary key, a unique constraint or a unique index of just these columns, not "
    "deferrable"
)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing unique": ({"key": (OddSeat.room, OddSeat.row)}, f"the columns of the key, room, row, {TOGETHER}"),
    "deferrable": ({"key": (OddSeat.room, OddSeat.number)}, f"the columns of the key, room, number, {TOGETHER}"),
    "a part of what is unique": (
        {"key": (OddSeat.row, OddSeat.number)}, f"the columns of the key, row, number, {TOGETHER}",
    ),
    "more than what is unique, and no entry names it": (
        {"key": (OddSeat.id, OddSeat.height)},
        "the columns of the key, id, height, must all be in the entries of the change log, and height is not: let "
        "the mapping have a UniqueConstraint of just these columns",
    ),
    "a partial index": (
        {"key": (OddSeat.shelf, OddSeat.number)}, f"the columns of the key, shelf, number, {TOGETHER}",
    ),
    "nullable": ({"key": (OddSeat.floor, OddSeat.wing)}, "the key 'wing' must be NOT NULL"),
    "a type without equality": (
        {"key": (OddSeat.floor, OddSeat.ratio)}, "the key 'ratio' must be of one of the types str, int, date, UUID",
    ),
    "a column twice": ({"key": (OddSeat.row, OddSeat.row)}, "`key` names a column twice: row, row"),
    "one column": ({"key": (OddSeat.id,)}, "`key` is a tuple of one column: write key = OddSeat.id"),
    "no column": ({"key": ()}, "`key` must be a mapped attribute, such as Book.title, or several"),
    "text": ({"key": ("room", "number")}, "`key` must be a mapped attribute, such as Book.title, or several"),
    "another class": ({"key": (OddSeat.id, Seat.id)}, "Seat.id is no column of OddSeat: `key` and `also` are of one"),
    "also: not unique": (
        {"key": OddSeat.id, "also": (OddSeat.room,)},
        f"`also`: 'room' {UNIQUE}",
    ),
    "also: deferrable": (
        {"key": OddSeat.id, "also": (OddSeat.late,)},
        f"`also`: 'late' {UNIQUE}",
    ),
    "also: a type without equality": (
        {"key": OddSeat.id, "also": (OddSeat.weight,)}, "`also`: 'weight' must be of one of the types str, int, date",
    ),
    "also: the key": ({"key": OddSeat.id, "also": (OddSeat.id,)},
        "`also` names 'id', which is the key: leave it out",
    ),
    "also: twice": ({"key": OddSeat.id, "also": (OddSeat.code,) * 2}, "`also` names a column twice: code, code"),
    "also: no tuple": (
        {"key": OddSeat.id, "also": OddSeat.code}, "`also` must be a tuple of mapped attributes: (Book.isbn,)",
    ),
    "also: several columns": (
        {"key": OddSeat.id, "also": ((OddSeat.row, OddSeat.number),)},
        "`also` must be a tuple of mapped attributes: (Book.isbn,)",
    ),
    "also: another class": (
        {"key": OddSeat.id, "also": (Seat.code,)}, "Seat.code is no column of OddSeat: `key` and `also` are of one",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
async def test_addresses_that_may_be_of_two_rows_are_refused_at_start(postgres_url, case):
    declared, words = REFUSED[case]
    with pytest.raises(WiringError) as refusal:
        await refused(postgres_url, **declared).start()
    assert f"Faulty: {words}" in str(refusal.value)


async def test_what_is_unique_by_a_constraint_or_an_index_is_admitted(postgres_url):
    for declared in (
        {"key": (OddSeat.row, OddSeat.number, OddSeat.floor)},
        {"key": (OddSeat.floor, OddSeat.number, OddSeat.row)},
        {"key": (OddSeat.id, OddSeat.number)},
        {"key": OddSeat.id, "also": (OddSeat.code,)},
    ):
        async with refused(postgres_url, **declared):
            pass

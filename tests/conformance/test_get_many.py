"""Several documents by their keys: in the order of the keys, from one store, the same bytes from both."""

from __future__ import annotations

import asyncio

import pytest

from diptych import InvalidMessage, UnreadableRowError
from tests import setaside
from tests.addressed import Owner, Seat, read_models, seating
from tests.catalogue import Recorded, answered_by, redis_side_of


@pytest.fixture
def redis_url(valkey):
    """One kind is enough: what is stored is the same."""
    return valkey.url


async def fill(app) -> None:
    await app.orm.create(Owner, name="Ann")
    await app.orm.create_all(
        Seat,
        [
            {"room": "A", "number": n, "code": f"c{n}", "badge": n, "guest": "Emma", "owner_id": 1}
            for n in range(1, 601)
        ],
    )


async def test_both_stores_answer_every_key_in_its_place(database_url, redis_url):
    async with seating(database_url, redis_url) as app, seating(database_url) as sql:
        await fill(app)
        await answered_by(app, "redis")
        keys = [("A", 7), ("A", "3"), ("B", 7), ("A", 7), ("A", None), ("A", 2**40), ("A", 599), ("A\x00", 1)]
        numbers = [7, 3, None, 7, None, None, 599, None]
        for store, seats in (("redis", read_models(app)[0]), ("sql", read_models(sql)[0])):
            for found in (
                await seats.get_many(keys),
                await seats.get_many(key for key in keys),
                await seats.get_many(code=["c7", "c3", "C7", "c7", None, "\ud800", "c599", "7"]),
                await seats.get_many(badge=[7, "3", 2**40, 7, "x", None, 599, 0]),
            ):
                assert {document.served.store for document in found} == {store}
                assert [bool(document) for document in found] == [number is not None for number in numbers]
                assert [document.body for document in found] == [
                    (await seats.get(("A", number))).body for number in numbers
                ]
            assert await seats.get_many([]) == []
            [nothing] = await seats.get_many([("A", None)])
            assert (nothing.body, nothing.decode(), nothing.served.reason) == (None, None, "no-key")
            many = await seats.get_many([("A", n) for n in range(500, 0, -1)])
            assert [document.decode().number for document in many] == list(range(500, 0, -1))
            many = await seats.get_many(badge=range(101, 601))
            assert [document.decode().number for document in many] == list(range(101, 601))


async def test_all_documents_come_by_one_command_of_redis(database_url, redis_url):
    async with seating(database_url, redis_url) as app:
        await fill(app)
        await answered_by(app, "redis")
        seats, _ = read_models(app)
        await seats.get_many([("A", 1)])
        channel = redis_side_of(app).service.channel
        assert channel is not None
        sent = Recorded(channel, "send")
        found = await seats.get_many([("A", n) for n in range(1, 501)])
        assert ({document.served.store for document in found}, len(sent.calls)) == ({"redis"}, 1)


async def test_without_a_lease_sql_answers_all_of_them_with_one_reason(database_url, valkey):
    async with seating(database_url, valkey.url) as app:
        await fill(app)
        await answered_by(app, "redis")
        seats, _ = read_models(app)
        keys = [("A", 2), ("Z", 1), ("A", 1)]
        before = [document.body for document in await seats.get_many(keys)]
        valkey.flush()
        found = await seats.get_many(keys)
        assert [document.body for document in found] == before
        assert {(document.served.store, document.served.reason) for document in found} == {
            ("sql", "no-lease")
        }


@pytest.mark.parametrize("has_redis", [True, False])
async def test_what_is_no_list_of_keys_is_refused_in_words(database_url, redis_url, has_redis):
    async with seating(database_url, redis_url if has_redis else None) as app:
        seats, owned = read_models(app)
        with pytest.raises(InvalidMessage, match="keys has more than 500 keys: ask in several calls"):
            await seats.get_many([("A", n) for n in range(501)])
        with pytest.raises(InvalidMessage, match="keys has more than 500 keys: ask in several calls"):
            await owned.get_many(["no number"] * 501)
        with pytest.raises(TypeError, match="the key of Seats is of 2 columns"):
            await seats.get_many(["A7"])
        for keys in ("A7", 7, None, {("A", 7): 1}):
            with pytest.raises(TypeError, match="get_many takes a list of keys, not a value of type"):
                await seats.get_many(keys)
        with pytest.raises(TypeError, match="takes the key, or one column of `also` by its name"):
            await seats.get_many()
        with pytest.raises(TypeError, match="not the key, code together"):
            await seats.get_many([("A", 7)], code=["x"])


async def test_a_row_that_does_not_fit_raises_and_is_named(database_url, redis_url):
    """An answer without it would say that there is no such row; the others are still there one by one."""
    async with setaside.shop(database_url, redis_url) as app, setaside.shop(database_url) as sql:
        for sku in ("a", "b", "c"):
            await app.execute(setaside.Add(sku))
        cause = next(iter(setaside.CAUSES.values()))
        await setaside.write_raw(app, f"UPDATE products SET {cause.of(database_url)} WHERE sku = 'b'")
        await setaside.rebuild(app)
        for store, each in (("redis", app), ("sql", sql)):
            products, _ = setaside.read_models(each)
            with pytest.raises(UnreadableRowError) as raised:
                await products.get_many(["a", "b", "c"])
            assert (raised.value.table, raised.value.key, raised.value.field) == (
                "products",
                "b",
                cause.field,
            )
            found = await products.get_many(["c", "x", "a"])
            assert [document.served.store for document in found] == [store] * 3
            assert [document.body is None for document in found] == [False, True, False]


async def test_answers_asked_for_at_once_do_not_mix(database_url, redis_url):
    async with seating(database_url, redis_url) as app, seating(database_url) as sql:
        await fill(app)
        await answered_by(app, "redis")
        for seats in (read_models(app)[0], read_models(sql)[0]):
            asked = [[("A", n), ("A", n % 7 + 1)] for n in range(1, 120)]
            answers = await asyncio.gather(*map(seats.get_many, asked))
            assert [
                [(d.decode().room, d.decode().number) for d in documents] for documents in answers
            ] == asked

"""``diptych verify``: it names each difference that lasts and none other, and ``--repair`` mends it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from diptych import Diptych
from tests.captured import Program
from tests.catalogue import answered_by, eventually, redis_side_of, stop_keeper
from tests.servers import RedisServer
from tests.verified import AddItem, DeleteItem, SetStock, application, rows

ROOT = Path(__file__).parents[2]
COUNT = 300
pytestmark = pytest.mark.timeout(300)  # processes that start, on a busy machine
STAMP = (2**62).to_bytes(8, "big")
"""A stamp that no change will ever have."""


class Outcome(NamedTuple):
    """What a command has left."""

    code: int
    written: str
    complained: str

    @property
    def report(self) -> dict[str, Any]:
        assert self.written, self.complained
        found: dict[str, Any] = json.loads(self.written)
        return found

    @property
    def named(self) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
        """What differs, with the list's name, by read model, key and the column of a second address."""
        return {
            (name, each["key"], each.get("address", "")): [
                (finding["what"], finding.get("list", "")) for finding in each["differs"]
            ]
            for name, model in self.report["read_models"].items()
            for each in model["named"]
        }


async def begin(url: str, redis_url: str, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    settings = {"DIPTYCH_DATABASE_URL": url, "DIPTYCH_REDIS_URL": redis_url, "DIPTYCH_LEASE_MS": "2000"}
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "diptych.cli", "verify", *arguments),
        env={**ours, **settings, "DIPTYCH_APP": "tests.verified:app", **variables},
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def verify(url: str, redis_url: str, *arguments: str, **variables: str) -> Outcome:
    """Runs the command to its end."""
    process = await begin(url, redis_url, *arguments, **variables)
    written, complained = await asyncio.wait_for(process.communicate(), 90)
    return Outcome(process.returncode or 0, written.decode(), complained.decode())


class Hand:
    """Somebody who changes Redis by hand."""

    def __init__(self, app: Diptych, url: str) -> None:
        self.redis = redis.Redis.from_url(url)
        self._prefixes = {
            model.__name__: f"{keeper.replica.store._keys.prefix.decode()}:".encode()
            for model, keeper in redis_side_of(app).keepers.items()
        }

    def key(self, model: str, rest: bytes) -> bytes:
        """Returns the name of a key of the generation that serves."""
        prefix = self._prefixes[model]
        generations: Any = self.redis.smembers(prefix + b"generations")
        [generation] = generations
        return b"".join((prefix, generation, b":", rest))

    def entry(self, model: str, list_name: bytes, part: bytes) -> bytes:
        """Returns the only entry of a list with this part in it."""
        entries: list[Any] = self.redis.zrange(self.key(model, b"i:" + list_name), 0, -1)
        [found] = [each for each in entries if part in each]
        return bytes(found)


@contextlib.asynccontextmanager
async def serving(database_url: str, valkey: RedisServer) -> AsyncIterator[tuple[Diptych, Hand]]:
    """The application with its rows, served from Redis."""
    async with application(database_url, None):
        pass
    await Program(database_url).runs(*rows(COUNT))
    async with application(database_url, valkey.url) as app:
        await answered_by(app, "redis")
        yield app, Hand(app, valkey.url)


@contextlib.asynccontextmanager
async def busy(app: Diptych, database_url: str) -> AsyncIterator[None]:
    """Commands and a foreign program that change rows all the time, those below number 100 alone."""
    chosen = random.Random(7)
    is_over = asyncio.Event()

    async def command() -> None:
        while not is_over.is_set():
            await app.execute(SetStock(f"i{chosen.randrange(100):05}", chosen.randrange(1000)))
            await asyncio.sleep(0.004)

    async def come_and_go() -> None:
        while not is_over.is_set():
            await app.execute(AddItem("new", 7))
            await app.execute(DeleteItem("new"))

    async def interfere() -> None:
        program = Program(database_url)
        while not is_over.is_set():
            number = chosen.randrange(100)
            await program.runs(
                f"UPDATE items SET hidden = NOT hidden, title = 'foreign {number}' WHERE id = {number}",
                f"UPDATE owners SET name = 'Owner {chosen.randrange(1000)}' WHERE id = {chosen.randrange(2)}",
                f"DELETE FROM tagged WHERE item_id = {number}",
                f"INSERT INTO tagged (item_id, tag_id) VALUES ({number}, {number % 2})",
            )
            await asyncio.sleep(0.02)

    async with asyncio.TaskGroup() as tasks:
        for work in (command, command, come_and_go, interfere):
            tasks.create_task(work())
        try:
            yield
        finally:
            is_over.set()


def plant(hand: Hand) -> Mapping[tuple[str, str, str], list[tuple[str, str]]]:
    """Plants a difference of every kind, and returns what is to be named."""
    store, key = hand.redis, hand.key
    document = store.get(key("Items", b"d:i00200"))
    assert isinstance(document, bytes)
    # Documents
    store.delete(key("Items", b"d:i00201"), key("Bare", b"d:i00201"))
    store.set(key("Items", b"d:i00202"), document[:8])  # a tombstone in the place of a document
    store.set(key("Items", b"d:i00203"), STAMP + document[8:])
    store.set(key("Items", b"d:i00209"), STAMP + document[8:])  # a hidden row
    store.set(key("Items", b"d:nobody"), STAMP + document[8:])
    store.set(key("Items", b"d:\x1b[2J\x00"), document)
    store.set(key("Bare", b"d:nobody"), document)
    store.set(key("Bare", b"d:i00205"), document[:-1])
    store.rpush(key("Bare", b"d:a-list"), "x")  # of no other type than documents are
    store.delete(key("Bare", b"d:i00206"))
    store.rpush(key("Bare", b"d:i00206"), "x")
    owned = store.get(key("Owned", b'd:[210,"i00210"]'))
    assert isinstance(owned, bytes)
    store.set(key("Owned", b'd:[ 211, "i00211"]'), owned)  # no row's key is written like this
    # Copies
    store.delete(key("Items", b"d:\xffbadge:100211"))
    store.set(key("Items", b"d:\xffbadge:100212"), STAMP + document[8:])
    store.set(key("Items", b"d:\xffbadge:5"), document)
    store.set(key("Items", b"d:\xffbadge:five"), document)
    # Stamps of changes that are still to come
    late = b"\x7f" + b"\xff" * 7
    for model, where in (("Items", b"i00240"), ("Items", b"\xffbadge:100241"), ("Owned", b'[242,"i00242"]')):
        stored = store.get(key(model, b"d:" + where))
        assert isinstance(stored, bytes)
        store.set(key(model, b"d:" + where), late + stored[8:])
    store.set(key("Items", b"d:to come"), late)
    # Entries
    titles, by_tag = key("Items", b"i:titles"), key("TaggedItems", b"i:by-tag")
    store.zrem(titles, hand.entry("Items", b"titles", b"i00220"))
    store.zadd(titles, {b"\x01" + hand.entry("Items", b"titles", b"i00221"): 0})
    store.zadd(titles, {b"\x01ghost" + (5).to_bytes(4, "big"): 0, b"x": 0})
    store.zadd(titles, {b"\x01\xffghost" + (6).to_bytes(4, "big"): 0})
    store.zadd(titles, {hand.entry("Items", b"titles", b"i00222"): 1})
    store.zadd(key("Items", b"i:in-stock"), {hand.entry("Items", b"titles", b"i00224"): 0})
    store.zadd(by_tag, {b"\x01" + (231).to_bytes(2, "big") + b"231" + (3).to_bytes(4, "big"): 0})
    store.zrem(by_tag, hand.entry("TaggedItems", b"by-tag", b"232" + (3).to_bytes(4, "big")))
    # The records of entries
    store.hdel(key("Items", b"entries"), "i00225")
    store.hset(key("Items", b"entries"), "i00226", "x")
    store.hset(key("Items", b"entries"), "gone", b"\x92\xa0\xa0")
    record = store.hget(key("Items", b"entries"), "i00228")
    assert isinstance(record, bytes)
    store.hset(key("Items", b"entries"), "i00227", record)
    # What is counted as set aside
    store.zadd(key("Items", b"aside"), {key("Items", b"d:i00230"): 0})
    nothing = ("missing-document", ""), ("extra-document", ""), ("other-content", "")
    missing, extra, other = ([one] for one in nothing)
    entry, more, record_of = "missing-list-entry", "extra-list-entry", [("other-list-record", "")]
    return {
        ("Items", "i00201", ""): missing,
        ("Bare", "i00201", ""): missing,
        ("Items", "i00202", ""): missing,
        ("Items", "i00203", ""): other,
        ("Items", "i00209", ""): extra,
        ("Items", "nobody", ""): extra,
        ("Items", "\x1b[2J\x00", ""): extra,
        ("Bare", "nobody", ""): extra,
        ("Bare", "i00205", ""): other,
        ("Bare", "i00206", ""): missing,
        ("Owned", '[ 211, "i00211"]', ""): extra,
        ("Items", "100211", "badge"): [("missing-copy", "")],
        ("Items", "100212", "badge"): [("other-copy", "")],
        ("Items", "5", "badge"): [("extra-copy", "")],
        ("Items", "five", "badge"): [("extra-copy", "")],
        ("Items", "i00240", ""): [("impossible-stamp", "")],
        ("Items", "100241", "badge"): [("impossible-stamp", "")],
        ("Owned", '[242,"i00242"]', ""): [("impossible-stamp", "")],
        ("Items", "to come", ""): [("impossible-stamp", "")],
        ("Items", "i00220", ""): [(entry, "titles")],
        ("Items", "i00221", ""): [(more, "titles")],
        ("Items", "ghost", ""): [(more, "titles")],
        ("Items", "", ""): [(more, "titles")],
        ("Items", "i00222", ""): [(entry, "titles")],
        ("Items", "i00224", ""): [(more, "in-stock")],
        ("TaggedItems", "231", ""): [(more, "by-tag")],
        ("TaggedItems", "232", ""): [(entry, "by-tag")],
        ("Items", "i00225", ""): record_of,
        ("Items", "i00226", ""): record_of,
        ("Items", "gone", ""): record_of,
        ("Items", "i00227", ""): record_of,
        ("Items", "i00230", ""): [("miscounted-set-aside", "")],
    }


async def test_without_a_difference_it_ends_with_0_while_rows_are_changed(database_url, valkey):
    """Rows that are changed, hidden, moved and deleted all the time, by anybody, differ for a moment only."""
    async with serving(database_url, valkey) as (app, _), busy(app, database_url):
        for _ in range(3):
            outcome = await verify(database_url, valkey.url, "--json")
            assert (outcome.code, outcome.complained) == (0, "")
            assert outcome.named == {}
            assert outcome.report["ok"] is True
            assert outcome.report["read_models"]["Owned"]["documents"] >= COUNT


async def test_every_kind_of_difference_is_named_and_nothing_else_while_rows_are_changed(
    database_url, valkey
):
    async with serving(database_url, valkey) as (app, hand), busy(app, database_url):
        planted = plant(hand)
        outcome = await verify(database_url, valkey.url, "--json")
        assert outcome.named == planted
        assert (outcome.code, outcome.complained) == (1, "")
        assert outcome.report["ok"] is False
        assert outcome.report["differences"] == len(planted)


async def test_repair_mends_every_kind_while_rows_are_changed(database_url, valkey):
    async with serving(database_url, valkey) as (app, hand), busy(app, database_url):
        planted = plant(hand)
        outcome = await verify(database_url, valkey.url, "--repair", "--json")
        assert outcome.named == planted
        assert (outcome.code, outcome.complained) == (0, "")
        assert (outcome.report["ok"], outcome.report["left"]) == (True, 0)
        again = await verify(database_url, valkey.url, "--json")
        assert (again.code, again.named) == (0, {})
        # What was mended is changed by commands again, whatever stamp it had.
        for code in ("i00203", "i00240"):
            await app.execute(SetStock(code, 3))
            assert b'"stock":3' in hand.redis.get(hand.key("Items", b"d:" + code.encode()))  # type: ignore[operator]


async def test_rows_that_change_all_the_time_are_mended_too(sqlite_url, valkey):
    """An entry too many stays whatever commands do to the row."""
    async with serving(sqlite_url, valkey) as (app, hand), busy(app, sqlite_url):
        titles = hand.key("Items", b"i:titles")
        extra = {f"\x01i{number:05}".encode() + (6).to_bytes(4, "big"): 0 for number in range(20)}
        hand.redis.zadd(titles, extra)
        outcome = await verify(sqlite_url, valkey.url, "Items", "--repair", "--json")
        assert outcome.code == 0
        assert outcome.report["differences"] == len(extra)
        assert all(hand.redis.zscore(titles, entry) is None for entry in extra)


async def test_a_newer_document_is_never_overwritten_by_a_repair(sqlite_url, valkey):
    """What is not as it was found is left as it is, and so is what the floor does not cover yet."""
    async with serving(sqlite_url, valkey) as (app, hand):
        name = hand.key("Items", b"d:i00203")
        before = hand.redis.get(name)
        assert isinstance(before, bytes)
        keeper = next(iter(redis_side_of(app).keepers.values()))
        replica = keeper.replica
        from diptych.read.store.contents import Contents, Mending
        from diptych.read.store.writes import Write

        contents = Contents(replica.compiled, keeper.redis, replica.id)
        target = (await keeper.read_row()).target
        none = (frozenset[bytes](), frozenset[bytes]())
        found = await contents.look(target, {b"i00203": none})
        assert found is not None
        [stored] = found.values()
        late = Write(b"i00203", 0, 0, b'{"late":1}', (b"", b""))
        other = stored._replace(value=STAMP + before[8:])
        assert await contents.mend(target, [Mending(b"i00203", other, none, late)], 0) == 0
        assert await contents.mend(target, [Mending(b"i00203", stored, none, late)], 2**50) == 0
        assert hand.redis.get(name) == before
        elsewhere = target._replace(generation="another")
        assert await contents.mend(elsewhere, [Mending(b"i00203", stored, none, late)], 0) == "GONE"
        assert await contents.mend(target, [Mending(b"i00203", stored, none, late)], 0) == 1
        assert hand.redis.get(name) == bytes(8) + b'{"late":1}'


async def test_for_people_the_lines_name_what_differs_and_can_not_harm_a_terminal(sqlite_url, valkey):
    async with serving(sqlite_url, valkey) as (_, hand):
        plant(hand)
        outcome = await verify(sqlite_url, valkey.url, "Items")
        lines = outcome.written.splitlines()
        assert outcome.code == 1
        assert lines[0] == "Items: comparing"
        assert "Items: i00201: the document is missing" in lines
        assert "Items: \\x1b[2J\\x00: there is a document, but no row" in lines
        assert "Items: i00220: its entry in the list titles is missing" in lines
        assert "Items: 100211: the copy at badge is missing" in lines
        assert lines[-1].startswith("Items: 24 differences among 270 documents, in ")
        assert "\x1b" not in outcome.written
        outcome = await verify(sqlite_url, valkey.url, "Bare", "--repair", FORCE_COLOR="1", TERM="xterm")
        assert outcome.code == 0
        assert "\x1b[" not in outcome.written, "a pipe that is forced to have colours is no terminal"
        assert "Bare: 4 differences among 300 documents, 4 of them repaired, in " in outcome.written


@pytest.mark.parametrize(
    "variables",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
)
async def test_a_key_that_the_encoding_lacks_is_a_difference_all_the_same(sqlite_url, valkey, variables):
    async with serving(sqlite_url, valkey) as (_, hand):
        hand.redis.set(hand.key("Bare", "d:Émile".encode()), bytes(8) + b"{}")
        outcome = await verify(sqlite_url, valkey.url, "Bare", **variables)
        assert (outcome.code, outcome.complained) == (1, "")
        assert r"Bare: \xc9mile: there is a document, but no row" in outcome.written.splitlines()
        outcome = await verify(sqlite_url, valkey.url, "Bare", "--json", **variables)
        assert (outcome.code, outcome.complained) == (1, "")
        assert outcome.named == {("Bare", "Émile", ""): [("extra-document", "")]}


async def test_a_reader_that_has_gone_changes_nothing_of_the_outcome(sqlite_url, valkey):
    async with serving(sqlite_url, valkey) as (_, hand):
        hand.redis.set(hand.key("Bare", b"d:nobody"), bytes(8) + b"{}")
        process = await begin(sqlite_url, valkey.url, "Bare")
        assert process.stdout is not None
        transport = process._transport.get_pipe_transport(1)  # type: ignore[attr-defined]
        transport.close()
        _, complained = await asyncio.wait_for(process.communicate(), 90)
        assert (process.returncode, complained) == (1, b"")


async def test_of_many_differences_a_hundred_are_named_and_all_are_mended(sqlite_url, valkey):
    async with serving(sqlite_url, valkey) as (_, hand):
        hand.redis.delete(*hand.redis.keys(hand.key("Bare", b"d:*")))
        outcome = await verify(sqlite_url, valkey.url, "Bare")
        assert "Bare: … and 200 more: at most 100 are named" in outcome.written.splitlines()
        assert "Bare: 300 differences among 300 documents, in" in outcome.written
        outcome = await verify(sqlite_url, valkey.url, "Bare", "--repair", "--json")
        assert (outcome.code, outcome.report["differences"], outcome.report["left"]) == (0, 300, 0)
        assert (await verify(sqlite_url, valkey.url, "Bare")).code == 0


async def test_a_row_that_is_set_aside_is_no_difference_and_its_mark_is_mended(database_url, valkey):
    async with serving(database_url, valkey) as (_, hand):
        program = Program(database_url)
        await program.runs(f"UPDATE items SET title = '{'x' * 50}' WHERE id = 200")

        async def is_aside() -> bool:
            return hand.redis.zcard(hand.key("Items", b"aside")) == 1

        await eventually(is_aside, "the row is set aside")
        assert (await verify(database_url, valkey.url, "Items")).code == 0
        name = hand.key("Items", b"d:i00200")
        stored = hand.redis.get(name)
        hand.redis.set(name, bytes(8) + b"{}")
        hand.redis.delete(hand.key("Items", b"aside"))
        outcome = await verify(database_url, valkey.url, "Items", "--repair", "--json")
        assert (outcome.code, outcome.named) == (0, {("Items", "i00200", ""): [("other-content", "")]})
        assert isinstance(stored, bytes)
        assert hand.redis.get(name) == bytes(8) + stored[8:]
        assert await is_aside()
        hand.redis.delete(hand.key("Items", b"aside"))
        outcome = await verify(database_url, valkey.url, "Items", "--repair", "--json")
        assert outcome.named == {("Items", "i00200", ""): [("miscounted-set-aside", "")]}
        assert await is_aside()


async def test_without_a_lease_it_says_so_and_ends_with_2(sqlite_url, valkey):
    async with application(sqlite_url, None):
        pass
    outcome = await verify(sqlite_url, valkey.url)
    assert outcome.code == 2
    assert "Items can't be compared: no process keeps it in Redis. Start the application" in outcome.written
    async with serving(sqlite_url, valkey) as (app, hand):
        await stop_keeper(app)
        for lease in hand.redis.scan_iter(b"*:lease"):
            hand.redis.delete(lease)
        outcome = await verify(sqlite_url, valkey.url, "Items", "--json")
    assert outcome.code == 2
    assert outcome.report["ok"] is False
    assert outcome.report["read_models"]["Items"]["problem"].startswith(
        "Items can't be compared: it has no lease: no process of the application makes passes"
    )


async def test_a_key_of_another_type_is_told_of_its_read_model_alone(sqlite_url, valkey):
    async with serving(sqlite_url, valkey) as (_, hand):
        for model, rest in (("Items", b"i:titles"), ("Bare", b"d:i00201")):
            key = hand.key(model, rest)
            hand.redis.delete(key)
            hand.redis.rpush(key, "by hand")
        outcome = await verify(sqlite_url, valkey.url, "--json")
    assert outcome.code == 1
    found = outcome.report["read_models"]
    assert "of another type" in found["Items"]["problem"]
    assert "`diptych rebuild Items`" in found["Items"]["problem"]
    assert [each["key"] for each in found["Bare"]["named"]] == ["i00201"]
    assert found["Owned"]["differences"] == 0


async def test_passes_that_cease_meanwhile_are_told(sqlite_url, valkey):
    """Without a pass nothing can be proved."""
    async with serving(sqlite_url, valkey) as (app, hand):
        hand.redis.delete(hand.key("Bare", b"d:i00201"))
        process = await begin(sqlite_url, valkey.url, "Bare", "--json", DIPTYCH_REBUILD_BATCH_SIZE="1")
        await stop_keeper(app)
        written, _ = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 2
    assert "Bare can't be compared" in json.loads(written)["read_models"]["Bare"]["problem"]


async def test_a_read_model_that_is_built_anew_meanwhile_is_compared_again(sqlite_url, valkey):
    async with serving(sqlite_url, valkey) as (app, _):
        process = await begin(sqlite_url, valkey.url, "Bare", "--json", DIPTYCH_REBUILD_BATCH_SIZE="1")
        for _ in range(2):
            await asyncio.sleep(0.5)
            await app.rebuild(next(model for model in app.read_models if model.__name__ == "Bare"))
        written, complained = await asyncio.wait_for(process.communicate(), 90)
    assert (process.returncode, complained) == (0, b"")
    assert json.loads(written)["read_models"]["Bare"]["documents"] == COUNT


async def test_what_was_asked_for_wrongly_or_can_not_be_found_out_ends_with_2(sqlite_url, valkey):
    outcome = await verify(sqlite_url, valkey.url, "Itms")
    assert (outcome.code, outcome.written) == (2, "")
    assert outcome.complained == (
        'Error: there is no read model "Itms"; did you mean "Items"? There are Items, Owned, TaggedItems, Bare\n'
    )
    outcome = await verify(sqlite_url, "", "Items", DIPTYCH_REDIS_URL="")
    assert outcome.code == 2
    assert "REDIS_URL: is not set: SQL answers, and there is nothing to verify" in outcome.complained
    outcome = await verify(sqlite_url, valkey.url, "--json")
    assert (outcome.code, outcome.written) == (2, "")
    assert "there is no file " in outcome.complained
    await Program(sqlite_url).runs("CREATE TABLE other (id INTEGER PRIMARY KEY)")
    outcome = await verify(sqlite_url, valkey.url, "--json")
    assert (outcome.code, outcome.written) == (2, "")
    assert "the table items (Item) is not there" in outcome.complained
    async with application(sqlite_url, None):
        pass
    valkey.stop()
    outcome = await verify(sqlite_url, valkey.url, "--json")
    assert (outcome.code, outcome.written) == (2, "")
    assert outcome.complained.startswith("Error: Redis at redis://")
    assert len(outcome.complained.splitlines()) == 1


async def test_it_tells_now_and_then_how_far_it_is_and_ends_when_it_is_stopped(sqlite_url, valkey):
    async with serving(sqlite_url, valkey) as (app, _):
        await Program(sqlite_url).runs(
            "INSERT INTO items (id, code, title, stock, hidden) WITH RECURSIVE n(i) AS (SELECT 1000 UNION ALL "
            "SELECT i + 1 FROM n WHERE i < 9000) SELECT i, 'n' || i, '', 0, false FROM n"
        )
        await app.catch_up()
        await answered_by(app, "redis")
        process = await begin(sqlite_url, valkey.url, "Owned", DIPTYCH_REBUILD_BATCH_SIZE="1")
        assert process.stdout is not None
        assert await process.stdout.readline() == b"Owned: comparing\n"
        line = (await asyncio.wait_for(process.stdout.readline(), 30)).decode()
        assert line.startswith("Owned: ")
        assert " steps, " in line
        assert " a second, about " in line
        process.send_signal(signal.SIGINT)
        _, complained = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, complained) == (130, b"Stopped.\n")

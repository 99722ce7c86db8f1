"""The speed paths of diptych, each with what switches it off: the simple way, put in its place in this process.

A path is code that does faster what simpler code beside it, or a few lines in its place, would do as well. Names
are looked up by ``names``: nothing here knows where in diptych they are. To switch off is for measuring only: what is
put in place keeps the results of the benchmark right, and none of the guarantees.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, NamedTuple

from benchmarks.speed_paths.names import file_of, lines_of, module_of, put, the, uncache


class SpeedPath(NamedTuple):
    """A speed path, found by the class or function ``at``.

    ``goes`` are the classes and functions that would go with it altogether, beside ``more_lines`` within others
    (less than 0 where other code would have to come). ``off`` switches it off in this process. A path that can't be
    switched off as long as other paths are on is measured ``beneath`` these: they are off with it and without it.
    """

    name: str
    at: str
    goes: tuple[str, ...]
    more_lines: int
    off: Callable[[], None]
    beneath: tuple[str, ...] = ()

    @property
    def file(self) -> str:
        """The file, from the package's folder on."""
        return file_of(self.at)

    @property
    def lines(self) -> int:
        """Number of lines of code to go, roughly."""
        return self.more_lines + sum(map(lines_of, self.goes))


def switch_off(names: Iterable[str]) -> None:
    """Switches the paths of these names off in this process."""
    by_name = {path.name: path for path in PATHS}
    for name in names:
        by_name[name].off()


# Queries over HTTP


def _no_front() -> None:
    whole = the("asgi_app")
    put(
        "asgi_app",
        lambda site, *, hot=None, security_headers=None: whole(site, security_headers=security_headers),
    )


def _no_remembered_queries() -> None:
    sent_path = the("sent_path")

    def query_of(self, scope):
        sent = scope.get("raw_path")
        sent = sent_path(scope) if sent is None else sent
        return self._query_for(sent, scope["query_string"], scope.get("root_path", ""))

    put("Front._query_of", query_of)


def _no_remembered_headers() -> None:
    put("_remembered_headers", the("_headers_of"))


def _no_remembered_accept() -> None:
    put("_prefers_html", the("_prefers_html").__wrapped__)


def _usual_collector() -> None:
    gc.freeze = lambda: None
    gc.set_threshold = lambda *_: None


# Redis


def _no_batches() -> None:
    pack = the("packed")

    async def get(self, key):
        source = self._send.__self__
        return (await source._bodies([key]))[0]

    def documents(self, channel, generation, keys, receiver):
        prefix = self._keys.document(generation, b"")
        names = [prefix + key for key in keys]
        channel.send(pack(b"MGET", self._keys.lease, *names), receiver, length=1 + len(names))
        if (
            len(channel._unsent) == 1
        ):  # as `Channel.request` does: the batches are off, not the write per turn
            asyncio.get_running_loop().call_soon(channel.flush)

    put("Batcher.get", get)
    put("Reads.documents", documents)


def _replies_by_a_task() -> None:
    put("RedisSource._look_up", lambda self, batch: batch.resolve_later(self._bodies(batch.keys)))


def _lease_parsed_each_time() -> None:
    bodies_of = the("bodies_of")

    def resolve(self, batch, channel, generation, reply):
        lease, *documents = reply
        self._trusted = None
        if not self._doubt(lease, channel.server, generation):
            self._redis.answered()
            self._watch.answered_by_redis()
            batch.resolve(bodies_of(documents))
        else:
            batch.resolve_later(self._bodies(batch.keys))

    put("RedisSource._resolve", resolve)


def _a_write_for_each() -> None:
    whole = the("Channel.request")
    put(
        "Channel.request",
        lambda self, packed, length=None, *, at_once=False: whole(self, packed, length, at_once=True),
    )


def _redis_py() -> None:
    """Has each request sent over a connection of redis-py's own pool."""
    open_one, tasks = the("_opened_by"), set[asyncio.Task[Any]]()

    async def opened_by(client):
        opened = await open_one(client)
        opened.client_of_benchmark = client
        return opened

    async def ask(channel, packed):
        pool = channel._opened.client_of_benchmark.connection_pool
        connection = await pool.get_connection()
        try:
            await connection.send_packed_command(packed)
            return await connection.read_response()
        finally:
            await pool.release(connection)

    def request(self, packed, length=None, *, at_once=False):
        return asyncio.get_running_loop().create_task(ask(self, packed))

    def send(self, packed, receiver, length=None):
        def deal_out(task):
            tasks.discard(task)
            if task.exception() is not None:
                receiver.set_exception(task.exception())
            elif not receiver.done():
                receiver.set_result(task.result())

        task = request(self, packed)
        tasks.add(task)
        task.add_done_callback(deal_out)

    put("_opened_by", opened_by)
    put("Channel.request", request)
    put("Channel.send", send)
    put("Channel.flush", lambda self: None)


# Queries from SQL


def _no_inline_reads() -> None:
    put("InlineConnection.fetch", lambda self, short, values: None)


def _no_single_flight() -> None:
    async def run(self, key, execute):
        async with self._turns:
            return await execute()

    put("SingleFlight.run", run)


def _engine_read() -> None:
    async def read(self, select, values=None):
        async with self.reader.connect() as connection:
            return (await connection.execute(select, values)).all()

    put("Database.read", read)


def _page_selects_made_anew() -> None:
    put("PageSelects.select", lambda self, order, after: self._make(order, after is not None))


def _places_made() -> None:
    put("CompiledReadModel.is_placed", lambda self, row: False)


def _keys_fitted() -> None:
    put("CompiledReadModel.fit_key", lambda self, key: self._key_column.fit(key))


# Messages


def _plans_made_anew() -> None:
    put("fields_of", the("fields_of").__wrapped__)


def _checked_twice() -> None:
    put("fits", lambda struct, fields: False)


# Commands


def _text_checked() -> None:
    check_field, fields_of = the("_check_field"), the("fields_of")

    def check_fields(struct):
        canonical, faults = {}, []
        for field in fields_of(type(struct)):
            value = getattr(struct, field.name)
            checked, found = check_field(field, value, text=False)
            faults += found
            if checked is not value:
                canonical[field.name] = checked
        return canonical, faults

    put("check_fields", check_fields)


def _statements_made_anew() -> None:
    uncache("update_statement", "_with_log_row")


def _two_statements() -> None:
    put("is_possible", lambda connection, entity: False)


def _no_raw_statements() -> None:
    put("takes_raw_statements", lambda connection: False)


def _engine_transactions() -> None:
    class Pooled:
        def __init__(self, connection):
            self._connection = connection

        async def connection(self):
            return self._connection

        async def commit(self, *, then_find=None):
            try:
                await self._connection.commit()
            finally:
                await self._connection.close()
            return False

        async def roll_back(self, *, has_seen=True):
            await self._connection.close()
            return True

    async def begin(self, kind):
        connection = self._engine.connect()
        await connection.start()
        return Pooled(connection)

    put("PostgresTransactions.begin", begin)


def _no_look_with_the_commit() -> None:
    put("UnitsOfWork._may_look_at_once", property(lambda self: False))


def _no_dedicated_reader() -> None:
    async def fetch(self, select, values):
        return None

    put("DedicatedReader.fetch", fetch)


def _statements_in_a_thread() -> None:
    # In that module alone: transactions, which need the connection, go on to find it.
    vars(module_of("fetch_few"))["sqlite_under"] = lambda connection: None


def _inserts_by_the_engine() -> None:
    the("PreparedInsert").inline = property(lambda self: False, lambda self, inline: None)


def _a_commit_for_each() -> None:
    put("SqliteTransactions._joining", lambda self, opened, number: None)


# Acknowledgement


def _apply_before_the_sight() -> None:
    apply, sight = the("Hinge.apply"), the("Acknowledger._sight")
    under_way: ContextVar[Any] = ContextVar("under_way", default=())

    def applying(self, changes, targets):
        futures = apply(self, changes, targets)
        under_way.set(tuple(futures.values()))
        return futures

    async def sight_after(self):
        if futures := under_way.get():
            await asyncio.wait(futures)
        return await sight(self)

    put("Hinge.apply", applying)
    put("Acknowledger._sight", sight_after)


def _a_sight_for_each() -> None:
    async def sight(self):
        since = self.tracker.since(self.latest or {})
        found = await self._fence.sight(since, self.tracker.own.entries)
        self._note(found.rows)
        # Sights overtake each other here; the tracker would take that for a database that was put back.
        self.tracker._xmax = min(self.tracker._xmax, found.snapshot.xmax)
        return self.tracker.on_sight(found)

    put("FenceRows.sight", sight)


def _no_gathering() -> None:
    put("_GATHER_S", 0.0)


def _entries_read_each_time() -> None:
    make = the("Fence.__init__")

    def init(self, *arguments):
        make(self, *arguments)
        self._expects_others = 1

    put("Fence.__init__", init)
    put("Fence._note_others", lambda self, entries, own: None)
    put("_own_entries", lambda since, snapshot, own: None)


def _entries_in_a_second_statement() -> None:
    put("Fence._note_others", lambda self, entries, own: None)


def _listed_since_the_pass() -> None:
    listed = the("Listed")

    def on_sight(self, sight, row):
        self.advance(row)
        return listed(sight, row, self)

    put("Arrivals.on_sight", on_sight)


def _nothing_told() -> None:
    put("Arrivals.hear", lambda self, positions: None)


def _a_script_for_each() -> None:
    def apply(self, changes, target):
        async def write():
            if not self._redis.available:
                return None
            writes = [write for change in changes for write in self.store.writes.writes_of(change)]
            told = {write.stamp for write in writes}
            if await self.store.apply(target, writes, told=told) != "OK":
                return None
            self._note_applied(target, told)
            return frozenset(told)

        return asyncio.get_running_loop().create_task(write())

    put("Replica.apply", apply)


def _passes_write_all() -> None:
    put("Replica._applied_in", lambda self, target: ())


NOTHING = "nothing"

PATHS = (
    SpeedPath(NOTHING, "Diptych", (), 0, lambda: None),
    SpeedPath(
        "front", "Front", ("Front", "_accepted", "_prefers_html", "_query", "_check_hot"), 10, _no_front
    ),
    SpeedPath("remembered queries", "Front._query_of", ("Front._query_of",), 4, _no_remembered_queries),
    SpeedPath("remembered headers", "_headers_of", (), 5, _no_remembered_headers),
    SpeedPath("remembered Accept", "_prefers_html", (), 2, _no_remembered_accept),
    SpeedPath(
        "spared garbage collector", "_spare_the_collector", ("_spare_the_collector",), 2, _usual_collector
    ),
    SpeedPath(
        "batches of look-ups",
        "Batcher",
        (
            "Batcher",
            "Batch",
            "_BatchReceiver",
            "RedisSource._look_up",
            "RedisSource._resolve",
            "RedisSource._without_redis",
        ),
        8,
        _no_batches,
    ),
    SpeedPath(
        "replies without a task",
        "_BatchReceiver",
        ("_BatchReceiver", "RedisSource._resolve", "RedisSource._without_redis"),
        6,
        _replies_by_a_task,
    ),
    SpeedPath("lease compared as text", "RedisSource._resolve", (), 8, _lease_parsed_each_time),
    SpeedPath("a write per turn", "Channel.request", (), 6, _a_write_for_each),
    SpeedPath("own connections to Redis", "Channel", ("Channel", "Connection", "Pool"), 0, _redis_py),
    SpeedPath(
        "inline reads",
        "InlineConnection",
        ("InlineConnection", "SqlRows.try_one", "SqlRows.try_page", "SqlRows._try"),
        30,
        _no_inline_reads,
    ),
    SpeedPath("single flight", "SingleFlight", ("SingleFlight", "_Execution"), -4, _no_single_flight),
    SpeedPath("read in one greenlet", "Database.read", (), 2, _engine_read),
    SpeedPath("page selects kept", "PageSelects.select", (), 3, _page_selects_made_anew),
    SpeedPath(
        "places by types", "CompiledReadModel.is_placed", ("CompiledReadModel.is_placed",), 7, _places_made
    ),
    SpeedPath("keys of one form", "CompiledReadModel.fit_key", (), 2, _keys_fitted),
    SpeedPath("plans kept", "fields_of", (), 1, _plans_made_anew),
    SpeedPath("one check of built messages", "fits", ("fits",), 4, _checked_twice),
    SpeedPath("plain text passed over", "check_fields", (), 2, _text_checked),
    SpeedPath("statements kept", "update_statement", (), 12, _statements_made_anew),
    SpeedPath(
        "one statement for change and log",
        "_with_log_row",
        (
            "_with_log_row",
            "is_possible",
            "_fetch_one",
            "_is_possible",
            "_constants_in_defaults",
            "_constants",
            "_insertion",
            "_deletion",
            "_as_in_python",
            "_day",
            "_logged",
            "_is_it",
        ),
        60,
        _two_statements,
    ),
    SpeedPath(
        "raw statements",
        "RawStatement",
        ("RawStatement", "fetch_raw", "is_direct"),
        15,
        _no_raw_statements,
        ("one statement for change and log",),
    ),
    SpeedPath(
        "raw BEGIN and COMMIT",
        "_Pooled",
        ("_Pooled",),
        -14,
        _engine_transactions,
        ("one statement for change and log", "raw statements"),
    ),
    SpeedPath(
        "look with the commit",
        "_commit_and_find",
        ("_commit_and_find", "UnitsOfWork._may_look_at_once", "Acknowledger.is_idle"),
        12,
        _no_look_with_the_commit,
    ),
    SpeedPath("dedicated reader", "DedicatedReader", ("DedicatedReader",), 8, _no_dedicated_reader),
    SpeedPath("statements in the loop", "Schema.is_quick", ("Schema.is_quick",), 40, _statements_in_a_thread),
    SpeedPath(
        "inserts past the engine", "PreparedInsert", ("PreparedInsert.compiled",), 10, _inserts_by_the_engine
    ),
    SpeedPath(
        "shared commits",
        "SqliteTransactions._joining",
        ("SqliteTransactions._joining", "Undone"),
        45,
        _a_commit_for_each,
    ),
    SpeedPath("apply beside the sight", "Acknowledger.acknowledge", (), 0, _apply_before_the_sight),
    SpeedPath(
        "shared sights",
        "FenceRows._read_while_asked",
        ("FenceRows._read_while_asked", "FenceRows._answer"),
        10,
        _a_sight_for_each,
    ),
    SpeedPath("gathered sights", "FenceRows._read_while_asked", (), 6, _no_gathering),
    SpeedPath(
        "own entries",
        "_own_entries",
        ("_own_entries", "OwnChanges.forget", "Fence._note_others"),
        12,
        _entries_read_each_time,
    ),
    SpeedPath(
        "entries with the rows",
        "Fence._note_others",
        ("Fence._note_others", "FenceStatements._sight"),
        16,
        _entries_in_a_second_statement,
    ),
    SpeedPath("sights that are in", "Arrivals.on_sight", (), 12, _listed_since_the_pass),
    SpeedPath(
        "arrivals that Redis tells", "Arrivals.hear", ("Arrivals.hear", "Ending.heard"), 30, _nothing_told
    ),
    SpeedPath(
        "shared scripts", "Replica._apply_queued", ("Replica._apply_queued", "_Queued"), 0, _a_script_for_each
    ),
    SpeedPath(
        "passes leave out",
        "Replica._note_applied",
        ("Replica._note_applied", "Replica._applied_in"),
        14,
        _passes_write_all,
    ),
)
"""Every path that can be switched off; first none at all, which shows the noise."""

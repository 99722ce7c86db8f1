"""A program that changes open items and owners with a driver of its own, and knows nothing of diptych.

    python -m tests.acceptance.faults.beside.program '{"database": …}'

It records each change as a write that queries have to show a lease after its commit has returned. Stories have it do
more by a line on its standard input; it tells on its standard output when it is ready, and when it has done that.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from tests.acceptance.faults.beside.statements import (
    AT_ONCE,
    CHANGES,
    LASTING_OWNER,
    MANY,
    OWNERS,
    SIGN,
    some_key,
)
from tests.acceptance.faults.history import OPEN_ITEM, PROCESS, UNSEEN, Begin, End, Writer, now

ATTEMPTS = 5
"""How often it tries what a story has it do, if others are in the way."""


class Options(msgspec.Struct, frozen=True):
    """What a program is started with. Each of its ``threads`` waits ``pause_ms`` on average between two changes."""

    number: int
    database: str
    history: str
    lease_ms: int
    seed: int = 0
    threads: int = 2
    pause_ms: float = 80


def main() -> None:
    """Runs until told to quit."""
    options = msgspec.json.decode(sys.argv[1], type=Options)
    writer = Writer(Path(options.history))
    numbers = itertools.count(options.number * PROCESS + 1)
    over = threading.Event()
    hands = [Hand(options, n, numbers, writer) for n in range(options.threads + 1)]
    threads = [threading.Thread(target=hand.go_on, args=[over]) for hand in hands[1:]]
    for thread in threads:
        thread.start()
    _tell("ready")
    for line in sys.stdin:
        match line.split():
            case ["do", *words]:
                _tell("finished do" if hands[0].does(" ".join(words)) else "failed do")
            case ["quit"]:
                break
    over.set()
    for thread in threads:
        thread.join()
    writer.close()


def _tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class Hand:
    """One who writes, with a connection of his own."""

    def __init__(self, options: Options, number: int, numbers: Iterator[int], writer: Writer) -> None:
        self._engine = _engine(options.database)
        self._chance = random.Random(f"{options.seed}.{options.number}.{number}")
        self._grace = options.lease_ms * 1_000_000
        self._pause_s = options.pause_ms / 1000
        self._numbers = numbers
        self._record = writer.add
        self._connection: sa.Connection | None = None

    def go_on(self, over: threading.Event) -> None:
        """Changes rows until it is over."""
        while not over.wait(self._chance.expovariate(1 / self._pause_s)):
            kind = self._chance.choice(list(CHANGES))
            # Now and then it takes back what it has done.
            keeps = self._chance.random() > 0.05
            self._change(kind, CHANGES[kind], owner=self._chance.randint(1, OWNERS), keeps=keeps)

    def does(self, kind: str) -> bool:
        """Does what a story asks for. Returns whether that was committed."""
        return any(self._change(kind, AT_ONCE[kind], owner=LASTING_OWNER) for _ in range(ATTEMPTS))

    def _values(self, owner: int) -> dict[str, Any]:
        write = next(self._numbers)
        return {
            "write": write,
            "value": write,
            "name": str(write),
            "between": f"between {write}",
            "key": some_key(self._chance),
            "other": some_key(self._chance),
            "owner": owner,
            "number": self._chance.randint(1, OWNERS),
        }

    def _change(self, kind: str, statements: Sequence[str], *, owner: int, keeps: bool = True) -> bool:
        """Makes a change, and records when it was begun, when its commit had returned, and what came of it."""
        values = self._values(owner)
        number, keys = values["write"], [values["key"], values["other"]]
        self._record(Begin(number, kind, keys, now(), OPEN_ITEM, self._grace))
        outcome, note = "failed", ""
        try:
            connection = self._connected()
            connection.execute(sa.text(SIGN), values)
            changed = self._execute(connection, kind, statements, values)
            if keeps:
                outcome = "unknown"
                connection.commit()
                outcome = "done" if changed else "nothing"
            else:
                connection.rollback()
        except DBAPIError as error:
            note = f"{type(error.orig).__name__}: {error.orig}"[:200]
            self._disconnect()
        self._record(End(number, outcome, now(), note, []))
        return outcome == "done"

    def _execute(
        self, connection: sa.Connection, kind: str, statements: Sequence[str], values: dict[str, Any]
    ) -> bool:
        """Executes the statements. Returns whether they have changed anything."""
        if kind == UNSEEN:
            away, back = _without_triggers(connection)
            statements = [*away, *statements, *back]
        each = [{**values, "key": key} for key in MANY] if kind == "insert many" else values
        changed = [connection.execute(sa.text(text), each).rowcount != 0 for text in statements]
        return any(changed)

    def _connected(self) -> sa.Connection:
        if self._connection is None:
            self._connection = self._engine.connect()
        if self._engine.dialect.name == "sqlite":
            self._connection.exec_driver_sql("BEGIN IMMEDIATE")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        # The server's default may lose what it has said is committed when it is killed.
        arguments: dict[str, Any] = {
            "options": "-c synchronous_commit=on -c statement_timeout=5000",
            "connect_timeout": 3,
        }
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args=arguments)
    engine = sa.create_engine(
        url, poolclass=sa.NullPool, connect_args={"isolation_level": None, "timeout": 5}
    )

    @sa.event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine


def _without_triggers(connection: sa.Connection) -> tuple[list[str], list[str]]:
    """The statements after which diptych's triggers see no change of open items, and those that undo them."""
    if connection.dialect.name == "postgresql":
        table, trigger = "ALTER TABLE open_items", "TRIGGER diptych_capture"
        return [f"{table} DISABLE {trigger}"], [f"{table} ENABLE ALWAYS {trigger}"]
    found = connection.exec_driver_sql(
        "SELECT name, sql FROM sqlite_master "
        "WHERE type = 'trigger' AND tbl_name = 'open_items' AND name GLOB 'diptych_*'"
    ).all()
    # A colon would be taken for the beginning of a parameter.
    return [f'DROP TRIGGER "{row.name}"' for row in found], [row.sql.replace(":", r"\:") for row in found]


if __name__ == "__main__":
    main()

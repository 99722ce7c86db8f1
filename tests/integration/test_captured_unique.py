"""Triggers on SQLite log the rows that REPLACE may remove, find them by the unique indexes, and log no other rows."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.captured import Program, application, prepare

INDEXES = {
    "of a column": "CREATE UNIQUE INDEX one ON parts (amount)",
    "of another collation": "CREATE UNIQUE INDEX one ON parts (code COLLATE NOCASE)",
    "of an expression": "CREATE UNIQUE INDEX one ON parts (lower(code))",
    "of a collated expression": "CREATE UNIQUE INDEX one ON parts (code || 'x' COLLATE NOCASE, amount DESC)",
    "partial": "CREATE UNIQUE INDEX one ON parts (maker_id) WHERE maker_id > 8",
    "partial, with a comment": "CREATE UNIQUE INDEX one ON parts (whole_id, amount) WHERE whole_id = 1 -- of one",
    "partial, with the table's name": "CREATE UNIQUE INDEX one ON parts (maker_id) WHERE parts.amount = 7",
    "partial, of an expression": "CREATE UNIQUE INDEX one ON parts (abs(amount)) WHERE maker_id > 0 AND id > 4",
}


async def _captured(url: str, index: str) -> Program:
    """A program beside an application that knows of the index."""
    program = await prepare(url, "UPDATE parts SET maker_id = NULL", index)
    async with application(url, None):
        pass
    return program


@contextmanager
def _opened(url: str) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize("index", [pytest.param(text, id=name) for name, text in INDEXES.items()])
async def test_each_write_has_one_entry_where_no_row_is_in_the_way(sqlite_url, index):
    await _captured(sqlite_url, index)
    with _opened(sqlite_url) as connection:
        connection.execute("DELETE FROM diptych_log")
        for number in range(20):
            connection.execute(
                "INSERT INTO parts (id, code, amount, maker_id, whole_id) VALUES (?, ?, ?, 7, 2)",
                (100 + number, f"n{number}", 100 + number),
            )
        connection.execute("UPDATE parts SET code = code || '!' WHERE id >= 100")
        kinds = connection.execute("SELECT kind, count(*) FROM diptych_log GROUP BY kind ORDER BY kind")
        assert kinds.fetchall() == [("created", 20), ("updated", 20)]


@pytest.mark.parametrize("index", [pytest.param(text, id=name) for name, text in INDEXES.items()])
@pytest.mark.parametrize("trigger", ["diptych_capture_parts_bi", "diptych_capture_parts_bu"])
async def test_rows_in_the_way_are_found_by_the_indexes(sqlite_url, index, trigger):
    await _captured(sqlite_url, index)
    with _opened(sqlite_url) as connection:
        made = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (trigger,)).fetchone()[0]
        [select] = re.findall(r"SELECT .*(?=; END)", made)
        select = re.sub(r'\b(?:NEW|OLD)\."\w+"', "?", select)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {select}", (None,) * select.count("?")).fetchall()
        steps = [row[3] for row in plan]
        assert not [step for step in steps if re.match(r"SCAN (?!\(|CONSTANT)", step)], steps
        assert [step for step in steps if " USING INDEX one " in step], steps

"""The commands ``log tail`` and ``log show``: entries of the change log, for people and for programs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import rich_click as click

from diptych.cli.commands.migrate import check_file, database_of
from diptych.cli.options import app_option, errors_told, factory_option, json_option, loaded
from diptych.cli.output import is_unread, print_json
from diptych.cli.target import CommandError
from diptych.log import Snapshot
from diptych.log.browse import EntryValues, LogBrowser, LogEntry

if TYPE_CHECKING:
    from diptych.app import Diptych

T = TypeVar("T")

_POLL_S = 0.25
"""Interval between two looks for new entries, in seconds."""


@click.group()
def log() -> None:
    """Show what was changed: the entries of the change log."""


@log.command()
@app_option
@factory_option
@json_option
@click.option(
    "-n", "number", type=click.IntRange(0, 10_000), default=10, show_default=True, help="Number of entries."
)
@click.option("--follow", "-f", is_flag=True, help="Go on with the entries that are committed from now on.")
def tail(app: str, factory: bool, as_json: bool, number: int, follow: bool) -> None:
    """Show the newest entries of the change log, the newest last, one on each line.

    Ends with 0, with --follow when it is interrupted (Ctrl+C); 1 if SQL is away, and 2 if what was asked for is
    wrong.
    """
    write = _write_json if as_json else _write_line

    async def show(browser: LogBrowser) -> None:
        entries, seen = await browser.newest(number)
        _write_all(write, entries)
        if follow:
            await _follow(browser, seen, write)

    async def show_until_interrupted(browser: LogBrowser) -> None:
        showing = asyncio.ensure_future(show(browser))
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, showing.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await showing

    with errors_told():
        try:
            _run(loaded(app, factory), show_until_interrupted if follow else show)
        except KeyboardInterrupt:  # while the application was imported
            if not follow:
                raise


@log.command()
@click.argument("position", type=click.IntRange(1, 2**63 - 1))
@app_option
@factory_option
@json_option
def show(position: int, app: str, factory: bool, as_json: bool) -> None:
    """Show the entry at POSITION, with the values of its row before and after the change.

    Ends with 0, 1 if there is no such entry or SQL is away, and 2 if what was asked for is wrong.
    """

    async def find(browser: LogBrowser) -> tuple[LogEntry, EntryValues] | None:
        return await browser.at(position)

    with errors_told():
        found = _run(loaded(app, factory), find)
        if found is None:
            raise CommandError(f"the change log has no entry at position {position}, or has forgotten it")
        entry, values = found
        if as_json:
            _write_json(entry, msgspec.to_builtins(values))
        else:
            print("\n".join(_whole(entry, values)))


def _run(application: Diptych, work: Callable[[LogBrowser], Awaitable[T]]) -> T:
    async def run() -> T:
        database = await database_of(application)
        try:
            check_file(database)
            return await work(LogBrowser(database))
        finally:
            await database.close()

    return asyncio.run(run())


async def _follow(browser: LogBrowser, seen: Snapshot, write: Callable[[LogEntry], None]) -> None:
    """Writes the entries that are committed after the snapshot ``seen``, until nobody reads."""
    while not is_unread():
        earlier = seen
        async for entries, seen in browser.since(earlier):  # noqa: B007 - the next look begins there
            _write_all(write, entries)
        await asyncio.sleep(_POLL_S)


def _write_all(write: Callable[[LogEntry], None], entries: Sequence[LogEntry]) -> None:
    for entry in entries:
        write(entry)
    sys.stdout.flush()


# For programs


def _write_json(entry: LogEntry, more: Mapping[str, Any] | None = None) -> None:
    print_json({**msgspec.to_builtins(entry), **(more or {})})


# For people


def shown(text: str, escape: Callable[[str], str] | None = None) -> str:
    r"""Returns text for a terminal, on which what is in a row must not act: control characters are escaped.

    >>> shown("Dune\x1b[2J")
    'Dune\\x1b[2J'
    """
    if text.isprintable():
        return text
    escape = escape or (lambda character: character.encode("unicode_escape").decode("ascii"))
    return "".join(c if c.isprintable() else escape(c) for c in text)


def _write_line(entry: LogEntry) -> None:
    parts = [f"{entry.position:>6}", _time(entry.recorded_at), f"{entry.kind:<7}", _row_of(entry)]
    parts += [f"by {entry.actor}"] if entry.actor else []
    parts += [f"command {entry.command_id}"] if entry.command_id else []
    print(shown("  ".join(parts)))


def _whole(entry: LogEntry, values: EntryValues) -> Iterator[str]:
    facts = [
        ("position", str(entry.position)),
        ("time", _time(entry.recorded_at)),
        ("transaction", None if entry.transaction is None else str(entry.transaction)),
        ("change", entry.kind),
        ("entity", entry.entity),
        ("row", _row_of(entry)),
        ("command", entry.command_id),
        ("correlation", entry.correlation_id),
        ("actor", entry.actor),
    ]
    for name, value in facts:
        if value is not None:
            yield f"{name:<11}  {shown(value)}"
    old, new = values.old or {}, values.new or {}
    names = list(dict.fromkeys((*new, *old)))
    if names:
        yield ""
    width = max(map(len, map(shown, names)), default=0)
    for name in names:
        yield f"{shown(name):<{width}}  {_change(name, values)}"


def _change(name: str, values: EntryValues) -> str:
    """Returns a column's value, or the value before and after."""
    sides = [_value(side[name]) for side in (values.old, values.new) if side is not None and name in side]
    return (
        " -> ".join(dict.fromkeys(sides)) if values.old is not None and values.new is not None else sides[0]
    )


def _value(value: object) -> str:
    return shown(json.dumps(value, ensure_ascii=False), _in_json)


def _in_json(character: str) -> str:
    return json.dumps(character)[1:-1]


def _row_of(entry: LogEntry) -> str:
    moved = f" (was {entry.old_row})" if entry.old_row is not None else ""
    return " ".join(filter(None, (entry.table or entry.entity, entry.row))) + moved


def _time(time: datetime.datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S}.{time.microsecond // 1000:03}Z"

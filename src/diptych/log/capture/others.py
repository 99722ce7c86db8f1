"""Other mappings of captured tables, for which the triggers were made: of other versions and other applications."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaError
from diptych.log.capture.fingerprint import fingerprints, looks
from diptych.log.capture.table import CAPTURE, CapturedTable

_TAKE = "stop the processes that have it so, and run `diptych migrate`"


async def refuse_others(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> None:
    """Raises ``SchemaError`` where the triggers are made for a mapping that this one can't be beside.

    Each of the two would make the triggers anew, and end what the other one has built, again and again.
    """
    names = await other_names(connection, tables)
    problems = [
        f"{captured.name} is captured as {name} already: map the table alike in all applications, with its schema or "
        f"without, {_TAKE}"
        for name, captured in names
    ]
    for look in await looks(connection, tables):
        entity, table = look.captured.entity, look.captured.name
        problems += [
            f"{entity}.{own.attribute} is the column {own.name} here, and {other.name} for those who made the"
            f" triggers on {table}, which has both: the log names columns by their attributes, and can't tell the"
            f" two. Give the attribute another name while both columns are there, or {_TAKE}"
            for own, other in look.contested
        ]
    if problems:
        raise SchemaError(problems)


async def forget_others(connection: AsyncConnection, tables: Sequence[CapturedTable]) -> None:
    """Removes the notes by which these tables are captured under other names."""
    for name, _ in await other_names(connection, tables):
        await connection.execute(sa.delete(CAPTURE).where(CAPTURE.c.table_name == name))


async def other_names(
    connection: AsyncConnection, tables: Sequence[CapturedTable]
) -> Sequence[tuple[str, CapturedTable]]:
    """Returns the other names by which any of these tables is captured, with its schema or without, each with it."""
    noted = await connection.scalars(sa.select(CAPTURE.c.table_name))
    alike = list(_alike({*noted, *(captured.name for captured in tables)}, tables))
    if not alike:
        return []
    present = await fingerprints(connection, [*tables, *(other for other, _ in alike)])
    same = (each for each in alike if present.get(each[0].name, "") == present.get(each[1].name))
    return [(other.name, captured) for other, captured in same]


def _alike(names: Set[str], tables: Sequence[CapturedTable]) -> Iterator[tuple[CapturedTable, CapturedTable]]:
    """Yields tables of names that differ in the schema alone, or in small and capital letters, each with its like."""
    for captured in tables:
        for name in sorted(names - {captured.name}):
            schema, table = name[: -len(captured.table)], name[-len(captured.table) :]
            if table.lower() == captured.table.lower() and schema[-1:] in ("", "."):
                yield captured._replace(name=name, schema=schema[:-1] or None, table=table), captured

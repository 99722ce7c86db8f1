"""The command ``check``: whether an index serves the SQL of each list, and of each field of other rows."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from diptych.cli.commands.migrate import check_file, database_of
from diptych.read.panel import mapped_classes, missing_of, open_panels
from diptych.sql.failures import translated
from diptych.sql.registry import EntityRegistry
from diptych.sql.schema.application import check_tables

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.read.sql.indexes import MissingIndex


class Checked(NamedTuple):
    """The report of a check, and whether everything is as it should be."""

    report: str
    is_good: bool


def checked(application: Diptych) -> Checked:
    """Looks for the indexes of all lists and fields in the database."""
    missing = asyncio.run(_missing(application))
    if any(each.python for each in missing):
        return Checked(_report(missing), False)
    which = "each other list" if missing else "each list"
    return Checked("\n".join([*map(_without, missing), f"an index serves the SQL of {which}"]), True)


async def _missing(application: Diptych) -> list[MissingIndex]:
    database = await database_of(application)
    try:
        check_file(database)
        entities = EntityRegistry(database.name)
        models = application.read_models
        mappers = {model: entities.of(model).mapper for model in mapped_classes(models)}
        with translated(database):
            await check_tables(database, mappers.values(), set(mappers))
        settings = application.config.settings
        panels = await open_panels(models, database, entities, settings)
        return await missing_of(panels, database)
    finally:
        await database.close()


def _report(missing: list[MissingIndex]) -> str:
    lines = [f"{_without(each)}\n" for each in missing if not each.python]
    for each in (each for each in missing if each.python):
        what = "field" if each.is_field else "list"
        lines.append(f"{each.read_model}: no index of {each.table} serves the {what} {each.name!r}; create\n")
        lines.append(f"    {each.python}\n")
    lines.append(
        "Each goes below its mapped class, with `from sqlalchemy import Index`, and into the database by a migration."
    )
    return "\n".join(lines)


def _without(each: MissingIndex) -> str:
    if each.aggregates:
        return (
            f"{each.read_model}: the list {each.name!r} aggregates: no index can serve it; when Redis does not "
            "answer, a page computes the fields of all rows that it selects, for DATABASE_TIMEOUT_MS at most"
        )
    return (
        f"{each.read_model}: no index can serve the list {each.name!r}, which is in the order of a joined table's "
        "column; when Redis does not answer, a page sorts all rows that it selects"
    )

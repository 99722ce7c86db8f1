"""The read side of an application, composed: each read model's declaration compiled, and its route over SQL."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from diptych.aio.event_loop import LoopBudget
from diptych.config.settings import Settings
from diptych.errors import WiringError
from diptych.read.address_checks import key_attributes
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.read.model import ReadModel
from diptych.read.nested.in_sql import NestedInSql
from diptych.read.sql.fallback import SqlFallback
from diptych.read.sql.indexes import MissingIndex, Needed, missing_indexes
from diptych.read.sql.rows import SqlRows
from diptych.sql.database import Database
from diptych.sql.failures import translated
from diptych.sql.registry import EntityRegistry

_log = logging.getLogger("diptych.read")

_OF_LISTS = (
    "%s: in SQL no index serves the lists %s, whose pages get slow with many rows when Redis does not answer; "
    "`diptych check` names the indexes to create"
)
_OF_UNSERVED_LISTS = (
    "%s: in SQL no index can serve the lists %s: when Redis does not answer, a page computes or sorts all rows that "
    "it selects; see `diptych check`"
)
_OF_FIELDS = (
    "%s: no index serves the fields %s: each change of their rows reads whole tables, to find the documents; "
    "`diptych check` names the indexes to create"
)

ReadModelClass = type[ReadModel[Any]]


class ReadPanel(NamedTuple):
    """A read model without Redis: the class, its declaration compiled, its rows in SQL, and answers from these."""

    model: ReadModelClass
    compiled: CompiledReadModel
    rows: SqlRows
    fallback: SqlFallback


async def open_panels(
    models: Sequence[ReadModelClass],
    database: Database,
    entities: EntityRegistry,
    settings: Settings,
) -> list[ReadPanel]:
    """Checks the declarations against the database, and returns a panel for each.

    Queries of all panels share the connections and the event loop fairly. Raises ``WiringError``,
    ``DatabaseUnavailableError``.
    """
    _check_names(models)
    await _look_at_tables(dict.fromkeys(mapped_classes(models)), database, entities)
    turns, pace = asyncio.Semaphore(settings.sql_query_concurrency), LoopBudget()
    timeout_s = settings.database_timeout_s
    dialect = database.reader.dialect

    def panel(model: ReadModelClass) -> ReadPanel:
        entity = entities.of(_class_of(model))
        joined = {joined: entities.of(joined).describe(dialect) for joined in joined_models(model)}
        compiled = CompiledReadModel(model, entity.describe(dialect), joined)
        nested = None
        if compiled.nested:
            nested = NestedInSql(dialect, entities.of, entity, compiled.nested, compiled.ways)
        rows = SqlRows(
            database,
            entities.of,
            entity,
            [address.names for address in compiled.addresses],
            compiled.columns,
            compiled.joins,
            collections=compiled.collections,
            nested=nested,
            where=compiled.where,
        )
        return ReadPanel(model, compiled, rows, SqlFallback(compiled, rows, turns, pace, timeout_s))

    return [panel(model) for model in models]


async def missing_of(panels: Iterable[ReadPanel], database: Database) -> list[MissingIndex]:
    """Returns the lists and fields of read models whose SQL no index serves. Raises ``DatabaseUnavailableError``."""
    needed: list[Needed] = []
    for panel in panels:
        for index in panel.compiled.lists:
            columns = panel.rows.linking(index) or [(panel.rows.entity, panel.rows.order(index))]
            needed += [Needed(panel.compiled.name, index.name, *each) for each in columns]
        needed += [Needed(panel.compiled.name, *each, is_field=True) for each in panel.rows.linked()]
    if not needed:
        return []
    with translated(database):
        async with database.reader.connect() as connection:
            return await missing_indexes(connection, needed)


async def warn_of_missing(panels: Iterable[ReadPanel], database: Database) -> None:
    """Logs the lists and fields whose SQL no index serves, in a line of each kind for each read model.

    Lists that no index can serve are no warning: nobody could do anything about one at every start.
    """
    missing: dict[tuple[str, str], list[str]] = {}
    for each in await missing_of(panels, database):
        line = _OF_FIELDS if each.is_field else _OF_LISTS if each.python else _OF_UNSERVED_LISTS
        missing.setdefault((each.read_model, line), []).append(each.name)
    for (read_model, line), names in missing.items():
        level = logging.INFO if line is _OF_UNSERVED_LISTS else logging.WARNING
        _log.log(level, line, read_model, "; ".join(dict.fromkeys(names)))


async def _look_at_tables(models: Iterable[type], database: Database, entities: EntityRegistry) -> None:
    """Reads the columns that the database has for these mapped classes."""
    with translated(database):
        async with database.reader.connect() as connection:
            for model in models:
                await entities.of(model).look_at_table(connection)


def mapped_classes(models: Iterable[ReadModelClass]) -> Iterator[type]:
    """Yields the mapped classes whose rows the documents are made from."""
    for model in models:
        yield _class_of(model)
        yield from joined_models(model)


def _class_of(model: ReadModelClass) -> type:
    """Returns the mapped class of a read model's rows."""
    mapped: type = key_attributes(model)[0].class_
    return mapped


def _check_names(models: Iterable[type]) -> None:
    counts = Counter(model.__name__ for model in models)
    problems = [
        f"{count} read models are named {name}: rename all but one, or they would share their keys in Redis"
        for name, count in counts.items()
        if count > 1
    ]
    if problems:
        raise WiringError(problems)

"""The command ``status``: which store answers each read model, how far Redis lags, and who makes the passes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich_click as click

from diptych.cli.commands.migrate import check_file, database_of
from diptych.cli.options import app_option, errors_told, factory_option, json_option, loaded
from diptych.cli.output import print_json
from diptych.errors import DatabaseUnavailableError, SchemaError
from diptych.fence.look import FenceLook, look_at_fence
from diptych.health import Overview, ReadModelStatus, StoreStatus
from diptych.log.reading import LogReader
from diptych.read.panel import ReadPanel, mapped_classes, open_panels
from diptych.sql.database import Database
from diptych.sql.failures import translated
from diptych.sql.registry import EntityRegistry
from diptych.sql.schema.application import check_tables

if TYPE_CHECKING:
    from diptych.app import Diptych

_NO_REDIS = StoreStatus("off", None, "REDIS_URL is not set")


@click.command()
@app_option
@factory_option
@json_option
def status(app: str, factory: bool, as_json: bool) -> None:
    """Show the state of the stores and of each read model, without starting the application.

    Which store would answer now, or why SQL would; how many committed changes Redis does not hold yet, and how old
    they are; documents, rows that are set aside, memory, and the process that makes the passes. Nothing is changed.

    Ends with 0 when all is in order, 1 if a store is away or SQL answers in place of Redis, and 2 if what was asked
    for is wrong.
    """
    with errors_told():
        found = asyncio.run(overview_of(loaded(app, factory)))
    if as_json:
        print_json(found)
    else:
        print("\n".join(_lines(found)))
    if not found.in_order:
        raise SystemExit(1)


async def overview_of(application: Diptych) -> Overview:
    """Looks at an application from outside. Raises ``ConfigurationError``, ``WiringError``."""
    database = await database_of(application)
    try:
        return await _overview(application, database)
    finally:
        await database.close()


async def _overview(application: Diptych, database: Database) -> Overview:
    try:
        panels, reader, fence = await _look_at_sql(application, database)
    except (DatabaseUnavailableError, SchemaError) as error:
        is_up = isinstance(error, SchemaError)  # it answers, and has not the tables
        sql = StoreStatus("up" if is_up else "away", database.address, str(error))
        return await _without_sql(application, sql)
    sql = StoreStatus("up", database.address)
    settings = application.config.settings
    if settings.redis_url is None:
        models = {panel.compiled.name: ReadModelStatus("sql", "no-redis") for panel in panels}
        return Overview(True, sql, _NO_REDIS, fence.head, models)
    from diptych.hinge.overview import Sources, looking_at_redis, statuses, store_status

    async with looking_at_redis(settings.redis_url, settings) as service:
        redis = await store_status(service)
        models = await statuses(panels, service, redis, Sources(database, reader, fence))
    in_order = redis.state == "up" and all(model.served_by == "redis" for model in models.values())
    return Overview(in_order, sql, redis, fence.head, models)


async def _look_at_sql(
    application: Diptych, database: Database
) -> tuple[Sequence[ReadPanel], LogReader, FenceLook]:
    check_file(database)
    entities, models = EntityRegistry(database.name), application.read_models
    mappers = {model: entities.of(model).mapper for model in mapped_classes(models)}
    with translated(database):
        await check_tables(database, mappers.values(), set(mappers))
    panels = await open_panels(models, database, entities, application.config.settings)
    return panels, LogReader(database, entities.by_table), await look_at_fence(database)


async def _without_sql(application: Diptych, sql: StoreStatus) -> Overview:
    """Returns what can be told without SQL's tables: which store answers is not, since only SQL knows the columns."""
    settings, redis = application.config.settings, _NO_REDIS
    if settings.redis_url is not None:
        from diptych.hinge.overview import looking_at_redis, store_status

        async with looking_at_redis(settings.redis_url, settings) as service:
            redis = await store_status(service)
    unknown = ReadModelStatus(None, "sql-away" if sql.state == "away" else None)
    return Overview(False, sql, redis, None, {model.__name__: unknown for model in application.read_models})


# For people


def _lines(found: Overview) -> list[str]:
    rows = [("SQL", _store(found.sql)), ("Redis", _store(found.redis))]
    if found.log_head is not None:
        rows.append(("log", f"head at position {found.log_head}"))
    lines = _aligned(rows)
    for name, model in found.read_models.items():
        lines += ["", name, *(f"  {line}" for line in _aligned(_facts(model)))]
    return lines


def _store(store: StoreStatus) -> str:
    parts = (store.state, store.address and f"at {store.address}", store.detail and f"({store.detail})")
    return " ".join(filter(None, parts))


def _facts(model: ReadModelStatus) -> list[tuple[str, str]]:
    by = {"redis": "Redis", "sql": "SQL", None: "not known"}[model.served_by]
    facts = [("answered by", by if model.reason is None else f"{by}: {model.reason}")]
    if model.reason == "no-redis" or model.served_by is None:
        return facts
    lease, lag = model.lease_left_s, model.lag_changes
    is_looked_at = model.reason not in ("redis-away", "redis-refused")
    facts += [
        ("generation", model.generation or "none"),
        ("lease", f"{lease:.1f} s left" if lease is not None else "none" if is_looked_at else "not known"),
        ("passes by", model.passes_by or ("nobody" if is_looked_at else "not known")),
        ("lag", "not known" if lag is None else f"{lag} changes, {model.lag_seconds or 0:.1f} s"),
    ]
    if model.set_aside is not None:
        documents = "not known" if model.documents is None else str(model.documents)
        memory = "not known" if model.memory_bytes is None else f"about {_size(model.memory_bytes)}"
        facts += [("documents", documents), ("set aside", f"{model.set_aside} rows"), ("memory", memory)]
    return facts


def _size(number: float) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"


def _aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = max(len(name) for name, _ in rows)
    return [f"{name:{width}}  {value}" for name, value in rows]

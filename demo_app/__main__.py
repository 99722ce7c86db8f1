"""`python -m demo_app` serves the catalogue as a demonstration: with sample books, and with a Redis.

The command is `diptych run demo_app.app:app` with other defaults; the settings of diptych apply to both.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

# Not demo_app.app, which reads the settings when it is imported: they are not complete yet.
from demo_app.catalogue import create_catalogue
from demo_app.folding import fold_titles
from demo_app.many_books import MOST_BOOKS, Progress, fill
from demo_app.samples import add_samples
from diptych import ConfigService, ConfigurationError, SchemaError
from diptych.cli import Serving, embedded_available, serve

DATABASE = "books.db"


class Stores(NamedTuple):
    """The stores in use, in words for the announcement."""

    sql: str
    redis: str


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the demonstration until Ctrl+C or a signal ends the server."""
    options = _parser().parse_args(arguments)
    try:
        config = _configure(options.database)
    except ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    serve(
        "demo_app.app:app",
        host=options.host,
        port=options.port,
        workers=options.workers,
        redis=options.redis or _default_redis(config),
        announce=partial(_announce, config),
        prepare=partial(_prepare, samples=not options.no_samples, books=options.books),
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo_app", description="Serves the books catalogue, a demonstration of diptych."
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    # argparse reads a default that is text like an argument, so a faulty PORT is reported like a faulty --port.
    port = os.environ.get("PORT") or "8000"
    parser.add_argument("--port", type=_port, default=port, help="port to listen at (PORT, else 8000)")
    parser.add_argument("--workers", type=_positive, help="processes that serve (the setting WORKERS)")
    parser.add_argument(
        "--redis",
        metavar="embedded|none|URL",
        help="embedded runs a Valkey while this runs (the setting REDIS_URL, else embedded where it is installed)",
    )
    parser.add_argument(
        "--database",
        metavar="PATH|URL",
        help=f"(the setting DATABASE_URL, else {DATABASE} in this directory)",
    )
    parser.add_argument("--no-samples", action="store_true", help="leave an empty catalogue empty")
    parser.add_argument(
        "--books",
        type=_books,
        metavar="N",
        help=f"fill the catalogue up to N books, at most {MOST_BOOKS:,}, before it is served",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65_535:
        raise ValueError
    return port


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _books(text: str) -> int:
    number = _positive(text)
    if number > MOST_BOOKS:
        raise argparse.ArgumentTypeError(f"must be at most {MOST_BOOKS:,}")
    return number


# argparse names these in its messages: "invalid port value: …".
_port.__name__ = "port"
_positive.__name__ = _books.__name__ = "number"


def _configure(database: str | None) -> ConfigService:
    """Returns the settings, as far as known before the choice of a Redis.

    The database is put into the environment, where the workers find it.
    """
    if database is None and _is_default(_settings(), "DATABASE_URL"):
        database = DATABASE
    if database is not None:
        os.environ["DIPTYCH_DATABASE_URL"] = _settings(DATABASE_URL=database).get("DATABASE_URL")
    return _settings()


def _settings(**values: Any) -> ConfigService:
    # A critical Redis must not be looked for before --redis and its default are applied.
    return ConfigService(REDIS_CRITICAL=False, **values)


def _default_redis(config: ConfigService) -> str | None:
    """Returns the default of --redis; None leaves the choice to the settings."""
    if not _is_default(config, "REDIS_URL"):
        return None
    return "embedded" if embedded_available() else "none"


def _is_default(config: ConfigService, name: str) -> bool:
    return any(setting.name == name and layer == "default" for setting, _, layer in config.describe())


_TO_ADD = (
    "the catalogue is of an earlier version: choose another database by --database, or add the column by "
    "`ALTER TABLE books ADD COLUMN {column}`"
)


def _prepare(*, samples: bool, books: int | None) -> None:
    progress = None if books is None else Progress(books)
    try:
        asyncio.run(_prepared(samples, progress))
    except SystemExit:  # by Ctrl+C or a signal
        if progress is not None:
            progress.end(f"Stopped: {progress.there:,} books are there. The same command goes on from here.")
        raise
    except SchemaError as error:
        if not any("no column search_title" in problem for problem in error.problems):
            raise
        collation = ' COLLATE "C"' if _settings().get("DATABASE_URL").startswith("postgres") else ""
        raise SchemaError(
            [*error.problems, _TO_ADD.format(column=f"search_title VARCHAR(200){collation}")]
        ) from None


async def _prepared(samples: bool, progress: Progress | None) -> None:
    # SQL alone is written: when the server starts, it fills its Redis from SQL.
    async with create_catalogue(_settings(REDIS_URL=None)) as catalogue:
        await fold_titles(catalogue)
        if samples:
            await add_samples(catalogue)
        if progress is not None:
            added = await fill(catalogue, progress.wanted, progress)
            progress.end(f"{progress.there:,} books are there, {added:,} of them new.")


def _announce(config: ConfigService, serving: Serving) -> None:
    stores = _stores(config, serving)
    print(
        f"The books catalogue is at {serving.url}/books (commands go to {stores.sql}, "
        f"queries are answered from {stores.redis}). Ctrl+C stops it.",
        flush=True,
    )


def _stores(config: ConfigService, serving: Serving) -> Stores:
    shown = {setting.name: value for setting, value, _ in config.describe()}
    url = shown["DATABASE_URL"]
    sql = url if url.startswith("postgres") else f"the SQLite file {url.rpartition('sqlite:///')[2]}"
    redis = serving.redis or shown["REDIS_URL"]
    if redis == "none":
        return Stores(sql, "SQL, as there is no Redis")
    return Stores(sql, "an embedded Valkey" if redis == "embedded" else redis)


if __name__ == "__main__":
    main()

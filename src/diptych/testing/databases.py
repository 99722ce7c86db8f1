"""Databases for tests: copies of a database prepared once."""

from __future__ import annotations

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

from diptych.errors import ConfigurationError, MissingExtraError

T = TypeVar("T")
Prepare = Callable[[str], Awaitable[None]]
"""A function that makes the tables of an empty database, whose URL it is given."""


class Databases(ABC):
    """Databases of a kind, each a copy of a template.

    A template is made once for each function that prepares one; equal functions share theirs.
    """

    def __init__(self) -> None:
        self._templates: list[tuple[Prepare, str]] = []

    def create(self, prepare: Prepare) -> str:
        """Make an empty database, have ``prepare`` fill the database with tables; returns its URL."""
        return self._copy(self._template(prepare))

    @abstractmethod
    def drop(self, url: str) -> None:
        """Drop the database of this URL, with any connections."""

    def close(self) -> None:
        """Drop the templates."""
        while self._templates:
            self.drop(self._templates.pop()[1])

    def _template(self, prepare: Prepare) -> str:
        for known, template in self._templates:
            if known == prepare:
                return template
        template = self._empty()
        try:
            _run(_prepared(prepare, template))
        except BaseException:
            self.drop(template)
            raise
        self._templates.append((prepare, template))
        return template

    @abstractmethod
    def _empty(self) -> str:
        """Makes an empty database; returns its URL."""

    @abstractmethod
    def _copy(self, template: str) -> str:
        """Makes a copy of an unused database; returns its URL."""


class SqliteFiles(Databases):
    """SQLite files in a directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._directory = directory

    def drop(self, url: str) -> None:
        """Remove the file, with its log."""
        for ending in ("", "-wal", "-shm", "-journal"):
            Path(_file_of(url) + ending).unlink(missing_ok=True)

    def _empty(self) -> str:
        return f"sqlite:///{self._directory / uuid4().hex}.db"

    def _copy(self, template: str) -> str:
        url = self._empty()
        with (
            closing(sqlite3.connect(_file_of(template))) as source,
            closing(sqlite3.connect(_file_of(url))) as copy,
        ):
            source.backup(copy)
        return url


class PostgresDatabases(Databases):
    """Databases of the PostgreSQL server at ``url``, made by the URL's role."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = urlsplit(url.replace("postgresql+asyncpg://", "postgresql://", 1))

    def drop(self, url: str) -> None:
        """Drop the database, with any connections."""
        self._execute(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')

    def _empty(self) -> str:
        # Not as template1 of somebody else's server is.
        return self._create("template0")

    def _copy(self, template: str) -> str:
        return self._create(urlsplit(template).path[1:])

    def _create(self, template: str) -> str:
        name = f"diptych_test_{uuid4().hex}"
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return self._url._replace(path=f"/{name}").geturl()

    def _execute(self, statement: str) -> None:
        try:
            import asyncpg
        except ModuleNotFoundError as error:
            raise MissingExtraError("PostgreSQL for tests", "postgresql", "asyncpg") from error

        async def execute() -> None:
            connection = await asyncpg.connect(self._url.geturl())
            try:
                await connection.execute(statement)
            finally:
                await connection.close()

        try:
            _run(execute())
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            server = self._url.netloc.rpartition("@")[2]  # without user and password
            problem = (
                f"{statement.split(' TEMPLATE')[0]} failed on {server} (its role needs CREATEDB): {error}"
            )
            # Not `from error`: pytest would show the arguments of the driver's calls, the password among them.
            raise ConfigurationError("PostgreSQL for tests", problem) from None


async def _prepared(prepare: Prepare, url: str) -> None:
    await prepare(url)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Runs ``work`` in a loop of its own: a loop of the test's thread is left alone."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _file_of(url: str) -> str:
    return url.removeprefix("sqlite:///")

"""diptych's part of a database, brought up, printed as a script, or taken away: its tables, and its triggers."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.errors import SchemaError
from diptych.fence.adoption import adopt
from diptych.fence.capture import capture, generations_over
from diptych.log.append import gap_entries
from diptych.log.capture.fingerprint import Look, columns_text, fingerprint_select, looks
from diptych.log.capture.install import install_statements, remove_statements
from diptych.log.capture.others import other_names
from diptych.log.capture.table import CAPTURE, FORMAT, captured_table, literal, quoted
from diptych.sql.database import Database
from diptych.sql.entity import MappedEntity
from diptych.sql.failures import is_denied, translated, words_of
from diptych.sql.schema.application import check_tables
from diptych.sql.schema.own import (
    OWN_TABLES,
    alembic_alone,
    drop_statements,
    grant_statements,
    prepare_schema,
    role_of,
    upgrade_script,
)


class Installation:
    """diptych's own tables in a database, and the triggers on the tables of these ``entities``.

    ``hints`` says whether the triggers are to tell of changes by others at once.

    Every method raises ``SchemaError``, ``SchemaVersionError`` and ``DatabaseUnavailableError``.
    """

    def __init__(self, database: Database, entities: Sequence[MappedEntity], *, hints: bool) -> None:
        self._database = database
        self._hints = hints
        self._mappers = [entity.mapper for entity in entities]
        self._captured = [captured_table(entity) for entity in entities]

    async def bring_up(self, role: str | None = None) -> Collection[str]:
        """Makes missing and outdated tables and triggers, and gives ``role`` the necessary rights.

        Returns the names of the tables whose triggers were made.
        """
        with self._explained():
            await check_tables(self._database, self._mappers, ())
            await prepare_schema(self._database, None)
            if role is not None:
                await self._grant(role)
        await adopt(self._database)
        with translated(self._database):
            return await capture(self._database, self._captured, hints=self._hints, takes_over=True)

    async def remove(self) -> None:
        """Takes everything away, the change log too."""
        with self._explained():
            async with self._database.turn_to_write(first=True), self._database.begin() as connection:
                await self._database.lock_schema(connection)
                for statement in [*await remove_statements(connection), *drop_statements()]:
                    await connection.exec_driver_sql(statement)

    async def script(self, role: str | None = None) -> str:
        """Returns a script with the effect of ``bring_up``, for the owner of the tables.

        ``role`` is the role of the application; without it, that of ``DATABASE_URL``.
        """
        with translated(self._database):
            await check_tables(self._database, self._mappers, ())
            async with alembic_alone(), self._database.reader.connect() as connection:
                upgrade, token = await connection.run_sync(upgrade_script)
                statements = await self._triggers(connection, token, is_new=bool(upgrade))
                if role is None:
                    role = (await connection.run_sync(role_of)).name
                grants = grant_statements(self._database.name, role)
                return await self._written(connection, upgrade, [*statements, *grants])

    async def removal_script(self) -> str:
        """Returns a script with the effect of ``remove``."""
        with translated(self._database):
            async with self._database.reader.connect() as connection:
                statements = [*await remove_statements(connection), *drop_statements()]
                return await self._written(connection, "", statements)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Inside the block, a missing right or role is raised as ``SchemaError``."""
        try:
            with translated(self._database):
                yield
        except DBAPIError as error:
            if not is_denied(error) and getattr(error.orig, "sqlstate", None) != "42704":  # undefined_object
                raise
            mend = "run this as the owner of the tables, or let the owner run what --sql prints"
            raise SchemaError([f"{words_of(error)}: {mend}"]) from error

    # Scripts

    async def _triggers(self, connection: AsyncConnection, token: str, *, is_new: bool) -> list[str]:
        """Returns the statements to make wrong triggers anew, and to note the triggers as right.

        ★ The fingerprints are read when the script has made everything: they hold numbers that the database gives.
        Every generation made from such a table ends, since changes may have been missed until the script is run.
        ``is_new`` says that the script makes or upgrades diptych's own tables.
        """
        found = await looks(connection, self._captured, is_new=is_new)
        wrong = [look for look in found if not look.is_right]
        if wrong and self._database.name == "sqlite":
            wrong = found  # the script changes the number by which every table's triggers are known
        statements: list[str] = []
        for look in wrong:
            statements += await install_statements(connection, look, token, hints=self._hints)
        if wrong:
            others = [] if is_new else [name for name, _ in await other_names(connection, self._captured)]
            statements += [self._rendered(statement) for statement in self._notes(wrong, others)]
        return statements

    def _notes(self, made: Sequence[Look], others: Sequence[str]) -> Iterable[sa.Executable]:
        names = {look.captured.name for look in made}
        yield sa.delete(CAPTURE).where(CAPTURE.c.table_name.in_(sorted({*names, *others})))
        fingerprints = _bound(*fingerprint_select(self._database.name, [look.captured for look in made]))
        read = (sa.column("table_name", sa.Text), sa.column("fingerprint", sa.Text))
        present = fingerprints.columns(*read).subquery("present")
        columns = {look.captured.name: columns_text(look.to_be_named.columns) for look in made}
        of_table = sa.case(columns, value=present.c.table_name)
        rows = sa.select(present.c.table_name, of_table, present.c.fingerprint, sa.literal(FORMAT))
        yield sa.insert(CAPTURE).from_select(["table_name", "columns", "fingerprint", "format"], rows)
        if gaps := {look.captured.name: look.captured.entity for look in made if look.has_gap}:
            yield gap_entries(self._database.name, gaps)
        yield generations_over(self._database.name, names)

    def _rendered(self, statement: sa.Executable) -> str:
        compiled = statement.compile(  # type: ignore[attr-defined]
            dialect=self._database.reader.dialect, compile_kwargs={"literal_binds": True}
        )
        return str(compiled).strip()

    async def _written(self, connection: AsyncConnection, upgrade: str, statements: Sequence[str]) -> str:
        names = ", ".join(captured.name for captured in self._captured) or "no table"
        lines = [
            f"-- diptych: its own tables ({', '.join(OWN_TABLES)}), and its triggers on {names}.",
            "-- To be run whole, as the owner of these tables.",
        ]
        if not upgrade and not statements:
            return "\n".join([*lines, "-- There is nothing to do.", ""])
        begin = ["BEGIN;"] if self._database.name == "postgresql" else ["BEGIN IMMEDIATE;"]
        if self._database.name == "postgresql":
            path = (await connection.execute(sa.text("SELECT current_schemas(false)"))).scalar_one()
            begin += [
                f"SET LOCAL search_path = {', '.join(map(quoted, path)) or literal('')};",
                f"DO $$ BEGIN PERFORM pg_advisory_xact_lock({self._database.schema_lock}); END $$;",
            ]
        body = [upgrade.strip()] if upgrade else []
        return "\n\n".join(
            ["\n".join(lines), "\n".join(begin), *body, *(f"{each};" for each in statements), "COMMIT;\n"]
        )

    async def _grant(self, role: str) -> None:
        async with self._database.begin() as connection:
            for statement in grant_statements(self._database.name, role):
                await connection.exec_driver_sql(statement)


def _bound(statement: sa.TextClause, values: dict[str, Any]) -> sa.TextClause:
    """Returns the statement with its parameters as literals."""
    kinds = {name: ARRAY(sa.Text) if isinstance(value, list) else sa.Text() for name, value in values.items()}
    return statement.bindparams(
        *(sa.bindparam(name, value, type_=kinds[name], unique=False) for name, value in values.items())
    )

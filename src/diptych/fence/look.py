"""A look at the fence that changes nothing, for people: an application's own look may adopt the database."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from diptych.errors import SchemaError
from diptych.fence.adoption import is_same_database
from diptych.fence.contract import Rows
from diptych.fence.statements import FENCE_STATEMENTS, fence_row_of
from diptych.log.browse import NO_TABLES, looking
from diptych.log.table import HISTORY, LOG
from diptych.sql.database import Database


class FenceLook(NamedTuple):
    """The fence rows, the name of the database's history, and the position of the newest entry of the log (0: none).

    There are no rows if what the tables say is of another database or another clock: the next process that starts
    adopts this database, and builds everything anew.
    """

    rows: Rows
    history: str
    head: int


async def look_at_fence(database: Database) -> FenceLook:
    """Reads the fence. Raises ``SchemaError`` without diptych's tables, ``DatabaseUnavailableError``."""
    head = sa.select(sa.func.coalesce(sa.func.max(LOG.c.position), 0)).scalar_subquery()
    async with looking(database) as connection:
        one = sa.select(HISTORY.c.name, HISTORY.c.database, head.label("head"))
        history = (await connection.execute(one)).mappings().one_or_none()
        found = (await connection.execute(FENCE_STATEMENTS[database.name].rows)).mappings().all()
    if history is None:
        raise SchemaError([NO_TABLES])
    is_own = history["database"] != "" and is_same_database(history["database"], database.read_from)
    rows = [fence_row_of(row) for row in found if is_own and row["now"] is not None]
    return FenceLook({row.id: row for row in rows}, history["name"], history["head"])

"""Retention of the change log, for ever unless the settings say otherwise, and the log's followers."""

from __future__ import annotations

import logging
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.tasks import Looper
from diptych.config.settings import Settings
from diptych.log.reading import LOG_STATEMENTS
from diptych.log.table import EXPRESSIONS, LOG, OF_THIS_HISTORY, Value
from diptych.sql.database import Database
from diptych.sql.failures import translated

_log = logging.getLogger("diptych.write")

_DAY_S = 86_400.0
_INTERVAL_S = 3600.0
_ABANDONED_S = 3600.0
"""Age of a follower's last sign of life, in seconds, after which it counts as abandoned."""


class Followers(NamedTuple):
    """A table of followers of the log: readers with a cursor, each a row.

    ``cursor`` is the column of the snapshot up to which a follower has read, as text, and null without a cursor;
    ``stamp`` is ``Snapshot.stamp`` of that snapshot. ``close_abandoned`` takes the cursor away from each follower
    that has given no sign of life for ``p_age_s`` seconds by SQL's clock.
    """

    cursor: sa.Column[str]
    stamp: sa.Column[int]
    close_abandoned: sa.Update


def seen_by_all(followers: Followers, database: str) -> Value:
    """Returns the condition for rows of the log read by every follower. ``database`` is the name of the dialect.

    ★ Retention deletes no other rows: a change deleted before a follower has read it never reaches Redis.
    Rows of a former history are of no use to any cursor.
    """
    unseen = LOG_STATEMENTS[database].unseen_by(followers.cursor, followers.stamp)
    return ~sa.exists().where(followers.cursor.is_not(None), unseen, OF_THIS_HISTORY)


class Retention:
    """Deletion of old rows, and blanking of old personal data, in the change log: at start and every hour.

    A row that any of the ``followers`` has not read stays, however old.
    """

    def __init__(self, database: Database, settings: Settings, followers: Followers) -> None:
        self._database = database
        self._followers = followers
        self._rows_days = settings.log_retention_days
        self._data_days = settings.log_personal_data_days
        self._looper = Looper("log retention", self.run, _INTERVAL_S)

    def start(self) -> None:
        """Starts the hourly runs; does nothing where everything is kept for ever."""
        if self._rows_days is not None or self._data_days is not None:
            self._looper.start()

    async def stop(self) -> None:
        await self._looper.stop()

    async def run(self) -> None:
        """Deletes rows, and blanks personal data, due now."""
        with translated(self._database):
            async with self._database.turn_to_write(), self._database.begin() as connection:
                deleted, blanked = await self._forget(connection)
        if deleted or blanked:
            _log.info("change log: %d rows deleted, personal data of %d rows blanked", deleted, blanked)

    async def _forget(self, connection: AsyncConnection) -> tuple[int, int]:
        """Deletes rows, and blanks the personal data of younger rows, by their age in days of SQL's clock.

        Returns the numbers of deleted and of blanked rows. A blanked row keeps its position, entity, kind, command
        and time; image, keys and actor are gone.

        ★ A row that a cursor has not seen stays, however old by any clock.
        """
        # A keeper that comes back after days would go on from its cursor over a log that has lost rows meanwhile, and
        # have documents trusted that lack their changes. Without a cursor the keeper builds a generation instead.
        await connection.execute(self._followers.close_abandoned, {"p_age_s": _ABANDONED_S})
        seen = seen_by_all(self._followers, self._database.name)
        age_s = EXPRESSIONS[self._database.name].age
        deleted = blanked = 0
        if self._rows_days is not None:
            delete = sa.delete(LOG).where(age_s > self._rows_days * _DAY_S, seen)
            deleted = (await connection.execute(delete)).rowcount
        if self._data_days is not None:
            blank = (
                sa.update(LOG)
                .where(
                    age_s > self._data_days * _DAY_S,
                    sa.or_(LOG.c.image.is_not(None), LOG.c.key != "{}", LOG.c.actor.is_not(None)),
                    seen,
                )
                .values(key="{}", old_key=None, image=None, actor=None, row_id=None, old_row_id=None)
            )
            blanked = (await connection.execute(blank)).rowcount
        return deleted, blanked

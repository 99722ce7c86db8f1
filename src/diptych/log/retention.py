"""Retention of the change log, for ever unless the settings say otherwise, and the log's followers."""

from __future__ import annotations

import asyncio
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


_PART = 10_000
"""Rows of the log that are looked at, and changed, at a time: others have to wait for the transaction."""

_REST_S = 0.1
"""Rest after each transaction, in seconds, in which others have their turn."""


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


def _is_older(days: int | None, database: str) -> sa.ColumnElement[bool]:
    """Returns the condition for rows that are older than so many days, by SQL's clock; None: no row is."""
    return sa.false() if days is None else EXPRESSIONS[database].age > days * _DAY_S


class _Part(NamedTuple):
    """A part of the log: the positions ``after`` one, to the ``last``; it ``is_due`` if rows are old enough."""

    after: int
    last: int
    is_due: bool


class Retention:
    """Deletion of old rows, and blanking of old personal data, in the change log: at start and every hour.

    A row that any of the ``followers`` has not read stays, however old. A log may be large when a setting is made, so
    it is gone through in parts, by position, each in a transaction of its own.
    """

    def __init__(self, database: Database, settings: Settings, followers: Followers) -> None:
        self._database = database
        self._followers = followers
        says_something = sa.or_(LOG.c.image.is_not(None), LOG.c.key != "{}", LOG.c.actor.is_not(None))
        self._is_to_go = _is_older(settings.log_retention_days, database.name)
        self._is_to_be_blank = sa.and_(
            _is_older(settings.log_personal_data_days, database.name), says_something
        )
        self._is_wanted = (
            settings.log_retention_days is not None or settings.log_personal_data_days is not None
        )
        self._looper = Looper("log retention", self.run, _INTERVAL_S)

    def start(self) -> None:
        """Starts the hourly runs; does nothing where everything is kept for ever."""
        if self._is_wanted:
            self._looper.start()

    async def stop(self) -> None:
        await self._looper.stop()

    async def run(self) -> None:
        """Deletes rows, and blanks personal data, due now."""
        deleted = blanked = 0
        part: _Part | None = _Part(0, 0, is_due=True)  # of no rows: followers may be abandoned all the same
        with translated(self._database):
            while part is not None:
                if part.is_due:
                    async with self._database.turn_to_write(), self._database.begin() as connection:
                        rows = await self._forget(connection, part)
                    deleted, blanked = deleted + rows[0], blanked + rows[1]
                    await asyncio.sleep(_REST_S)
                part = await self._part_after(part.last)
        if deleted or blanked:
            _log.info("change log: %d rows deleted, personal data of %d rows blanked", deleted, blanked)

    async def _part_after(self, position: int) -> _Part | None:
        """Returns the part of the log after a position; None if there is none."""
        is_due = sa.case((sa.or_(self._is_to_go, self._is_to_be_blank), 1), else_=0).label("is_due")
        rows = sa.select(LOG.c.position, is_due).where(LOG.c.position > position)
        part = rows.order_by(LOG.c.position).limit(_PART).subquery()
        select = sa.select(sa.func.max(part.c.position), sa.func.max(part.c.is_due))
        async with self._database.reader.connect() as connection:
            last, due = (await connection.execute(select)).one()
        return None if last is None else _Part(position, last, is_due=bool(due))

    async def _forget(self, connection: AsyncConnection, part: _Part) -> tuple[int, int]:
        """Deletes rows of the part, and blanks the personal data of younger rows, by their age by SQL's clock.

        Returns the numbers of deleted and of blanked rows. A blanked row keeps its position, entity, kind, command
        and time; image, keys and actor are gone.

        ★ A row that a cursor has not seen stays, however old by any clock.
        """
        # A keeper that comes back after days would go on from its cursor over a log that has lost rows meanwhile, and
        # have documents trusted that lack their changes. Without a cursor the keeper builds a generation instead.
        await connection.execute(self._followers.close_abandoned, {"p_age_s": _ABANDONED_S})
        seen = seen_by_all(self._followers, self._database.name)
        within = sa.and_(LOG.c.position > part.after, LOG.c.position <= part.last, seen)
        deleted = await connection.execute(sa.delete(LOG).where(within, self._is_to_go))
        blank = sa.update(LOG).where(within, self._is_to_be_blank)
        blanked = await connection.execute(
            blank.values(key="{}", old_key=None, image=None, actor=None, row_id=None, old_row_id=None)
        )
        return deleted.rowcount, blanked.rowcount

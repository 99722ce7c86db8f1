"""How long the change log is kept: for ever, unless the settings say otherwise."""

from __future__ import annotations

import logging

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.aio.looper import Looper
from diptych.config.settings import Settings
from diptych.log.dialect import DIALECTS
from diptych.log.followers import Followers, seen_by_all
from diptych.log.table import LOG
from diptych.sql.database import Database
from diptych.sql.failures import translated

_log = logging.getLogger("diptych.write")

_DAY_S = 86_400.0
_INTERVAL_S = 3600.0
_ABANDONED_S = 3600.0
"""Age of a follower's last sign of life, in seconds, after which it counts as abandoned."""


class Retention:
    """Deletes old rows of the change log and blanks old personal data in it, at start and every hour.

    Rows that one of the ``followers`` has not read stay, however old they are.
    """

    def __init__(self, database: Database, settings: Settings, followers: Followers) -> None:
        self._database = database
        self._followers = followers
        self._rows_days = settings.log_retention_days
        self._data_days = settings.log_personal_data_days
        self._looper = Looper("log retention", self.run, _INTERVAL_S)

    def start(self) -> None:
        """Does nothing where everything is kept for ever."""
        if self._rows_days is not None or self._data_days is not None:
            self._looper.start()

    async def stop(self) -> None:
        await self._looper.stop()

    async def run(self) -> None:
        """Deletes and blanks what is due now."""
        with translated(self._database):
            async with self._database.turn_to_write(), self._database.begin() as connection:
                deleted, blanked = await self._forget(connection)
        if deleted or blanked:
            _log.info("change log: %d rows deleted, personal data of %d rows blanked", deleted, blanked)

    async def _forget(self, connection: AsyncConnection) -> tuple[int, int]:
        """Deletes rows, and blanks the personal data of others, by their age in days of SQL's clock.

        Returns the numbers of deleted and of blanked rows. A blanked row keeps its position, entity, kind, command
        and time; image, keys and actor are gone.

        ★ A row that a cursor has not seen stays, however old a clock takes it to be.
        """
        # A keeper that comes back after days would go on from its cursor over a log that has lost rows since, and
        # have documents trusted that lack these changes. With its cursor gone it builds a generation instead.
        await connection.execute(self._followers.close_abandoned, {"p_age_s": _ABANDONED_S})
        seen = seen_by_all(self._followers, self._database.name)
        age_s = DIALECTS[self._database.name].age
        deleted = blanked = 0
        if self._rows_days is not None:
            delete = sa.delete(LOG).where(age_s > self._rows_days * _DAY_S, seen)
            deleted = (await connection.execute(delete)).rowcount
        if self._data_days is not None:
            blank = (
                sa.update(LOG)
                .where(age_s > self._data_days * _DAY_S, LOG.c.image.is_not(None), seen)
                .values(key="{}", old_key=None, image=None, actor=None)
            )
            blanked = (await connection.execute(blank)).rowcount
        return deleted, blanked

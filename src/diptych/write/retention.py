"""How long the change log is kept: for ever, unless the settings say otherwise."""

from __future__ import annotations

import contextlib
import logging

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from diptych.config import ConfigService
from diptych.looper import Looper
from diptych.write.engines import Engines
from diptych.write.failures import translated
from diptych.write.fence_statements import FENCE_STATEMENTS
from diptych.write.log import LOG
from diptych.write.log_statements import LOG_STATEMENTS
from diptych.write.sql_words import WORDS

_log = logging.getLogger("diptych.write")

_DAY_S = 86_400.0
_INTERVAL_S = 3600.0
_ABANDONED_S = 3600.0
"""How long after its last lease a generation counts as one that nobody keeps."""


class Retention:
    """Forgets old rows and old personal data of the change log, at start and every hour."""

    def __init__(self, engines: Engines, config: ConfigService) -> None:
        self._engines = engines
        self._rows_days: int | None = config.get("LOG_RETENTION_DAYS")
        self._data_days: int | None = config.get("LOG_PERSONAL_DATA_DAYS")
        self._looper = Looper("log retention", self.run, _INTERVAL_S)

    def start(self) -> None:
        """Does nothing where everything is kept for ever."""
        if self._rows_days is not None or self._data_days is not None:
            self._looper.start()

    async def stop(self) -> None:
        await self._looper.stop()

    async def run(self) -> None:
        """Forgets what is due now."""
        async with self._engines.turns.take() if self._engines.turns else contextlib.nullcontext():
            with translated(self._engines):
                async with self._engines.writer.connect() as connection, connection.begin():
                    deleted, blanked = await _forget(connection, self._rows_days, self._data_days)
        if deleted or blanked:
            _log.info("change log: %d rows deleted, personal data of %d rows blanked", deleted, blanked)


async def _forget(
    connection: AsyncConnection, rows_days: int | None, data_days: int | None
) -> tuple[int, int]:
    """Deletes rows that are so many days old, and blanks the personal data of others, by SQL's clock.

    Returns how many rows were deleted and how many blanked. A blanked row keeps its position, entity, kind,
    command and time; image, keys and actor are gone.

    ★ What a cursor has not seen stays, however old a clock takes it to be.
    """
    seen = await _close_abandoned(connection)
    age_s = WORDS[connection.dialect.name].age
    deleted = blanked = 0
    if rows_days is not None:
        delete = sa.delete(LOG).where(age_s > rows_days * _DAY_S, seen)
        deleted = (await connection.execute(delete)).rowcount
    if data_days is not None:
        blank = (
            sa.update(LOG)
            .where(age_s > data_days * _DAY_S, LOG.c.image.is_not(None), seen)
            .values(key="{}", old_key=None, image=None, actor=None)
        )
        blanked = (await connection.execute(blank)).rowcount
    return deleted, blanked


async def _close_abandoned(connection: AsyncConnection) -> sa.ColumnElement[bool]:
    """Ends the generations that nobody has kept for long. Returns the condition for rows that the others have seen.

    A keeper that comes back after days would go on from its cursor over a log that has lost rows since, and have
    documents trusted that lack these changes: now it finds no generation and builds one. So does a planned rebuild,
    whose cursor is in a row of its own: it can't take its generation's place any more. What a generation that is
    kept, or being built, has not carried yet is left for the next time.
    """
    database = connection.dialect.name
    await connection.execute(FENCE_STATEMENTS[database].close_abandoned, {"p_age_s": _ABANDONED_S})
    return LOG_STATEMENTS[database].seen_by_all

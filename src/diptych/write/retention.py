"""How long the change log is kept: for ever, unless the settings say otherwise."""

from __future__ import annotations

import contextlib
import datetime
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

_log = logging.getLogger("diptych.write")

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
                    deleted, blanked = await _forget(
                        connection,
                        rows_before=_days_ago(self._rows_days),
                        data_before=_days_ago(self._data_days),
                    )
        if deleted or blanked:
            _log.info("change log: %d rows deleted, personal data of %d rows blanked", deleted, blanked)


async def _forget(
    connection: AsyncConnection,
    *,
    rows_before: datetime.datetime | None,
    data_before: datetime.datetime | None,
) -> tuple[int, int]:
    """Deletes rows recorded before a time, and blanks the personal data of those before another.

    Returns how many rows were deleted and how many blanked. A blanked row keeps its position, entity, kind,
    command and time; image, keys and actor are gone.
    """
    seen = await _close_abandoned(connection)
    deleted = blanked = 0
    if rows_before is not None:
        delete = sa.delete(LOG).where(LOG.c.recorded_at < rows_before, seen)
        deleted = (await connection.execute(delete)).rowcount
    if data_before is not None:
        blank = (
            sa.update(LOG)
            .where(LOG.c.recorded_at < data_before, LOG.c.image.is_not(None), seen)
            .values(key="{}", old_key=None, image=None, actor=None)
        )
        blanked = (await connection.execute(blank)).rowcount
    return deleted, blanked


async def _close_abandoned(connection: AsyncConnection) -> sa.ColumnElement[bool]:
    """Ends the generations that nobody has kept for long. Returns the condition for rows that the others have seen.

    A keeper that comes back after days would go on from its cursor over a log that has lost rows since, and have
    documents trusted that lack these changes: now it finds no generation and builds one. What a generation that
    is kept has not carried yet is left for the next time.
    """
    database = connection.dialect.name
    await connection.execute(FENCE_STATEMENTS[database].close_abandoned, {"p_age_s": _ABANDONED_S})
    return LOG_STATEMENTS[database].seen_by_all


def _days_ago(days: int | None) -> datetime.datetime | None:
    return None if days is None else datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)

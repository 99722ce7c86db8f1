"""How long the change log is kept: for ever, unless the settings say otherwise."""

from __future__ import annotations

import datetime
import logging

from diptych.config import ConfigService
from diptych.looper import Looper
from diptych.write import log
from diptych.write.engines import Engines
from diptych.write.failures import translated

_log = logging.getLogger("diptych.write")

_INTERVAL_S = 3600.0


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
        with translated(self._engines):
            async with self._engines.writer.connect() as connection, connection.begin():
                deleted, blanked = await log.forget(
                    connection, rows_before=_days_ago(self._rows_days), data_before=_days_ago(self._data_days)
                )
        if deleted or blanked:
            _log.info("change log: %d rows deleted, personal data of %d rows blanked", deleted, blanked)


def _days_ago(days: int | None) -> datetime.datetime | None:
    return None if days is None else datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=days)

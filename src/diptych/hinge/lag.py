"""The lag of a read model: the committed changes that its generation in Redis does not hold yet."""

from __future__ import annotations

from typing import NamedTuple

from diptych.errors import RedisUnavailableError, WiringError
from diptych.fence.contract import FenceRow
from diptych.log.lag import Unseen, unseen_by
from diptych.log.reading import LogReader
from diptych.read.compiled import CompiledReadModel
from diptych.read.store.store import RedisStore
from diptych.sql.database import Database


class Lag(NamedTuple):
    """The number of changes that are not in a generation, and the age in seconds of the oldest of them."""

    changes: int
    seconds: float


async def lag_of(
    database: Database,
    reader: LogReader,
    compiled: CompiledReadModel,
    store: RedisStore | None,
    row: FenceRow,
) -> Lag | None:
    """Returns the lag of the row's generation; None without a generation.

    A command writes its changes into the generation by itself, before a pass moves the cursor over them: where
    documents tell that (they are not joined, and a ``store`` is given), what is there already is not counted. Raises
    ``DatabaseUnavailableError``.
    """
    if row.cursor is None:
        return None
    unseen = await unseen_by(database, row.tables, row.cursor)
    if not unseen.entries or compiled.is_joined or store is None:
        return Lag(unseen.number, unseen.age_s)
    missing = await _missing(reader, store, row, unseen)
    if missing is None:
        return Lag(unseen.number, unseen.age_s)
    ages = [age_s for entry, age_s in unseen.entries if entry.position in missing]
    return Lag(len(ages), max(ages, default=0.0))


async def _missing(reader: LogReader, store: RedisStore, row: FenceRow, unseen: Unseen) -> set[int] | None:
    """Returns the positions of the changes that are not in the generation; None if that can't be told."""
    try:
        changes = reader.identified([entry for entry, _ in unseen.entries])
        missing = await store.missing(row.target, changes)
    except (RedisUnavailableError, WiringError, KeyError):  # blanked entries name no row
        return None
    return None if missing is None else {change.position for change in missing}

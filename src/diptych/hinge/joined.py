"""Joined documents, made of rows of several tables, written anew after changes of any of these rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diptych.fence.contract import Target
from diptych.hinge.refused import Refused, accepted
from diptych.log import Change, LogPart
from diptych.read.compiled import CompiledReadModel, key_bytes
from diptych.read.sql.rows import SqlRows
from diptych.read.store.store import RedisStore
from diptych.sql.view import View


class JoinedDocuments:
    """The joined documents of a read model.

    Passes alone write them: two commands could each write a document that lacks the other command's change.
    """

    def __init__(
        self, compiled: CompiledReadModel, source: SqlRows, store: RedisStore, *, batch_size: int
    ) -> None:
        self._compiled = compiled
        self._source = source
        self._store = store
        self._batch_size = batch_size

    async def write(self, target: Target, part: LogPart, view: View) -> None:
        """Writes every document touched by the changes of ``part``, each as the log's snapshot sees its rows."""
        keys: dict[bytes, Any] = {}
        others: dict[str, dict[Any, None]] = {}
        for change in part.changes:
            try:
                keys |= self._addresses(change)
                touched = self._compiled.touched(change)
            except KeyError:
                raise Refused("UNREADABLE") from None
            for column, values in touched:
                others.setdefault(column, {}).update(dict.fromkeys(values))
        for at in range(0, len(keys), self._batch_size):
            await self._write_at(target, list(keys.items())[at : at + self._batch_size], part, view)
        for column, altered in others.items():
            async for rows in self._source.rows_by(view, column, list(altered), self._batch_size):
                writes = [self._store.writes.joined_write(row, part.snapshot) for row in rows]
                await accepted(self._store.apply(target, writes))

    def _addresses(self, change: Change) -> dict[bytes, Any]:
        """Returns the keys of a row of the read model's own table, before and after its change.

        Raises ``KeyError`` if the log lacks one of them.
        """
        if change.entity.table != self._compiled.entity.table:
            return {}
        keys = [row[self._compiled.key] for row in (change.before, change.after) if row is not None]
        return {key_bytes(key): key for key in keys}

    async def _write_at(
        self, target: Target, keys: Sequence[tuple[bytes, Any]], part: LogPart, view: View
    ) -> None:
        """Writes the documents at these keys, and a tombstone where the snapshot sees no row."""
        found = self._source.rows_by(view, self._compiled.key, [value for _, value in keys], self._batch_size)
        writes = [self._store.writes.joined_write(row, part.snapshot) async for rows in found for row in rows]
        missing = dict(keys).keys() - {write.key for write in writes}
        writes += [self._store.writes.joined_tombstone(key, part.snapshot) for key in missing]
        await accepted(self._store.apply(target, writes))

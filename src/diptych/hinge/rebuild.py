"""A read model built anew from SQL, as a new generation, while commands go on changing rows."""

from __future__ import annotations

import logging
import secrets
import time

from diptych.errors import DiptychError
from diptych.hinge.gate import Gate
from diptych.hinge.replica import Replica
from diptych.ports import RowSource, Trusted

_log = logging.getLogger("diptych.hinge")

_PATIENCE_S = 2.0
"""How long a switch waits for commits that are under way."""

_PROGRESS_S = 2.0
"""How often the log tells how far it is."""


class Rebuild:
    """Rebuilds one read model; used again for every rebuild of it."""

    def __init__(self, replica: Replica, source: RowSource, gate: Gate, batch_size: int) -> None:
        self._replica = replica
        self._store = replica.store
        self._source = source
        self._gate = gate
        self._batch_size = batch_size

    async def run(self) -> None:
        """Start, fill, switch. A failure is told to the replica, which sets the time of the next try."""
        started = time.monotonic()
        try:
            target = await self._start()
            count = await self._fill(target)
            await self._switch(target)
        except _Interrupted as interruption:
            if self._replica.target is not None:
                self._replica.failed(str(interruption))
        except (DiptychError, TimeoutError) as error:
            self._replica.failed(str(error) or "a commit took too long")
        except Exception as error:
            # A row that the document has no place for, say: it must not keep other read models from being rebuilt.
            _log.exception("%s: the rebuild failed", self._replica.name)
            self._replica.failed(f"{type(error).__name__}, see above")
        else:
            if self._replica.fresh:
                seconds = time.monotonic() - started
                _log.info(
                    "%s: rebuilt, %d documents in %.1f s; Redis answers", self._replica.name, count, seconds
                )

    async def _start(self) -> Trusted:
        """A new generation, named by fresh random bits: a name used twice would let old writes into it."""
        await self._settle()
        generation = secrets.token_hex(8).encode()
        lease = b"building:" + (self._replica.redis.run_id or "").encode() + b":" + generation
        # Nobody is between commit and publication here: what was committed before is in SQL for the fill to
        # read, what is committed later is applied to the new generation.
        async with self._gate.closed(_PATIENCE_S):
            if self._replica.doubtful:
                raise _Interrupted("another commit is in doubt")
            former = await self._store.begin(generation, lease)
            target = Trusted(generation, lease)
            self._replica.building(target)
        await self._store.delete(former)
        return target

    async def _settle(self) -> None:
        """A commit of unknown outcome may still be carried out, after the fill has read its row: waits for it."""
        if self._replica.doubtful:
            self._replica.doubtful = False
            try:
                await self._source.settle()
            except BaseException:
                self._replica.doubtful = True
                raise

    async def _fill(self, target: Trusted) -> int:
        """Writes every row at position 0, which gives way to what commands have applied meanwhile."""
        total, done, told = await self._source.count(), 0, time.monotonic()
        _log.info("%s: rebuilding, %d rows", self._replica.name, total)
        async for rows in self._source.scan(self._batch_size):
            outcome = await self._store.apply(
                target.generation, target.lease, [self._store.write_of(r, 0) for r in rows]
            )
            if outcome == b"FOREIGN":
                self._replica.taken()
            if outcome != b"OK" or self._replica.target is not target:
                raise _Interrupted("Redis lost the new generation")
            done += len(rows)
            if time.monotonic() - told >= _PROGRESS_S:
                told = time.monotonic()
                share = 100 * done // max(total, done)
                _log.info(
                    "%s: rebuilding, %d of %d documents (%d %%)", self._replica.name, done, total, share
                )
            self._replica.progress = f"{done} of {max(total, done)} documents"
        return done

    async def _switch(self, target: Trusted) -> None:
        serving = target.lease.removeprefix(b"building:")
        async with self._gate.closed(_PATIENCE_S):
            if self._replica.target is not target:
                raise _Interrupted("a change was missed meanwhile")
            if await self._store.publish(target.generation, target.lease, serving):
                self._replica.serving(Trusted(target.generation, serving))
            else:
                self._replica.taken()


class _Interrupted(Exception):
    """The generation being built is not to be published."""

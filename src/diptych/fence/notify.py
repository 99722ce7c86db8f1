"""Requests for passes between processes, and hints of foreign changes of captured rows.

Both come by PostgreSQL's NOTIFY. On SQLite no process is asked, and the log is looked at for foreign entries.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Callable
from typing import Any

import msgspec
import sqlalchemy as sa

from diptych.aio.tasks import Looper, set_within
from diptych.errors import UnavailableError
from diptych.fence.contract import FenceId
from diptych.log.capture.postgres import HINT_CHANNEL
from diptych.log.table import LOG, whole
from diptych.sql.database import Database
from diptych.sql.failures import translated
from diptych.sql.statements import PreparedSelect

_log = logging.getLogger("diptych.write")

CHANNEL = "diptych"
"""Channel of NOTIFY."""

_RETRY_S = 1.0
_PROBE_S = 15.0
"""Interval between two statements on the listening connection, in seconds."""

_LOOK_S = 0.05
"""Interval between two looks for foreign entries in SQLite's log, in seconds."""

_NEWEST = PreparedSelect(
    sa.select(
        sa.func.max(LOG.c.position).label("last"),
        sa.func.max(sa.case((LOG.c.command_id == "", LOG.c.position))).label("foreign"),
    ).where(LOG.c.position > whole("p_after"))
)

_Request = tuple[str, str, int, str]
"""Read model, fingerprint, number of the last pass that began too early, and sender."""

_NOTIFY = sa.select(sa.func.pg_notify(CHANNEL, sa.bindparam("payload", type_=sa.Text)))


class PassNotifications:
    """Sends requests for passes of this process, and has callbacks called for requests of other processes.

    A request may get lost when the connection breaks: that costs a part of a lease. On SQLite all get lost.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._callbacks: list[Callable[[FenceId, int], None]] = []
        self._on_hint: list[Callable[[], None]] = []
        self._last = 0
        self._sender = uuid.uuid4().hex  # by which the process knows its own requests, which come back
        self._tried = asyncio.Event()
        if database.can_notify:
            self._looper = Looper("requests for passes", self._listen, _RETRY_S)
        else:
            self._looper = Looper("looks for foreign changes", self._look, _LOOK_S)
        self._warned = False

    async def ask(self, fence: FenceId, after: int) -> None:
        """Asks keepers of other processes for a pass later than pass ``after``. The request may get lost.

        Raises ``DatabaseUnavailableError``.
        """
        if self._database.can_notify:
            with translated(self._database):
                async with self._database.keeper.connect() as connection:
                    payload = msgspec.json.encode((*fence, after, self._sender)).decode()
                    await connection.execute(_NOTIFY, {"payload": payload})

    def on_asked(self, callback: Callable[[FenceId, int], None]) -> None:
        """Has ``callback`` called, in the event loop, with the arguments of each ``ask`` by other processes."""
        self._callbacks.append(callback)

    def on_hint(self, callback: Callable[[], None]) -> None:
        """Has ``callback`` called, in the event loop, soon after anybody but a command has changed a captured row.

        A hint may get lost.
        """
        self._on_hint.append(callback)

    async def listen(self) -> None:
        """Begins to listen for requests. Returns once requests are heard, or the database can't be reached now."""
        self._looper.start()
        if self._database.can_notify:
            await self._tried.wait()

    async def close(self) -> None:
        """Stops listening. Safe to call twice, or before ``listen``."""
        await self._looper.stop()

    async def _listen(self) -> None:
        """Listens until the connection breaks. The looper calls again then."""
        try:
            with translated(self._database):
                await self._hear()
        except UnavailableError as error:
            if not self._warned:
                _log.warning("requests for passes are not heard for now: %s", error)
            self._warned = True
        finally:
            self._tried.set()

    async def _hear(self) -> None:
        broken = asyncio.Event()
        async with self._database.keeper.connect() as connection:
            try:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                driver.add_termination_listener(lambda _connection: broken.set())
                await driver.add_listener(CHANNEL, self._heard)
                await driver.add_listener(HINT_CHANNEL, lambda *_notification: self._hint())
                self._warned = False
                self._tried.set()
                while not await set_within(broken, _PROBE_S):
                    # A connection that was cut without a word is only noticed when it is used.
                    await connection.execute(sa.select(1))
            finally:
                await connection.invalidate()  # listening, it is of no use to statements any more

    async def _look(self) -> None:
        """Looks for foreign entries in SQLite's log since the last look."""
        with contextlib.suppress(UnavailableError), translated(self._database):
            [[last, foreign]] = await self._database.read_for_hinge(_NEWEST, {"p_after": self._last})
            if last is not None:
                is_first, self._last = self._last == 0, last
                if foreign is not None and not is_first:
                    self._hint()

    def _hint(self) -> None:
        for callback in self._on_hint:
            callback()

    def _heard(self, _connection: object, _process: int, _channel: str, payload: object) -> None:
        try:
            read_model, fingerprint, after, sender = msgspec.json.decode(str(payload), type=_Request)
        except msgspec.MsgspecError:
            return  # another application uses the same channel
        if sender != self._sender:
            for callback in self._callbacks:
                callback(FenceId(read_model, fingerprint), after)

"""Processes of a run as the driver sees them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import msgspec
import psutil

from tests.acceptance.faults.load import Options
from tests.acceptance.faults.queries import QUERIES
from tests.servers import forget_process, watch_process


async def launched(
    module: str, options: msgspec.Struct, log: IO[bytes], cwd: Path, surroundings: Mapping[str, str]
) -> asyncio.subprocess.Process:
    """Starts a module of Python as a process that takes orders from its standard input."""
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", module, msgspec.json.encode(options).decode()),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
        env=surroundings,
        cwd=cwd,
        start_new_session=True,
    )


class Running:
    """A process that takes orders, and tells what it does; its ``number`` in the run is also its history's."""

    def __init__(self, number: int, process: asyncio.subprocess.Process) -> None:
        self.number = number
        self.stores: dict[str, str] = {}
        self.expected_to_end = False
        self._process = process
        self._heard: list[str] = []
        self._news = asyncio.Event()
        self._listening = asyncio.get_running_loop().create_task(self._listen())
        watch_process(process.pid)

    @property
    def lives(self) -> bool:
        """Whether it has not ended."""
        return self._process.returncode is None

    async def order(self, *words: object) -> None:
        """Tells it to do something (``worker._Orders``, ``beside.program``)."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(" ".join(map(str, words)).encode() + b"\n")
            await self._process.stdin.drain()

    async def hears(self, *beginnings: str, timeout_s: float) -> str | None:
        """The next line it tells with one of these beginnings; None if it ends, or the time, without one."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while True:
                    for n, line in enumerate(self._heard):
                        if line.startswith(beginnings):
                            del self._heard[n]
                            return line
                    if self._listening.done():
                        return None
                    self._news.clear()
                    await self._news.wait()
        return None

    def signal(self, number: signal.Signals) -> None:
        """Sends it a signal, if it lives."""
        # Not by the process object, which would look whether it has ended, and so hide that from the event loop.
        if self.lives:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def kill(self) -> None:
        """SIGKILL, and until it is gone."""
        self.expected_to_end = True
        self.signal(signal.SIGKILL)
        await self.ended()

    async def quit(self) -> None:
        """Has it end in good order; kills it if it does not."""
        self.expected_to_end = True
        self.signal(signal.SIGCONT)
        await self.order("quit")
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self.signal(signal.SIGKILL)
            raise AssertionError(f"process {self.number} did not end") from None
        finally:
            await self.ended()

    async def ended(self) -> None:
        """Waits until it has ended."""
        await self._process.wait()
        await self._listening
        forget_process(self._process.pid)
        if self._process.stdin is not None:
            self._process.stdin.close()
            with contextlib.suppress(ConnectionError):
                await self._process.stdin.wait_closed()

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            match line.decode().split(" "):
                case ["store", kind, store]:
                    self.stores[kind] = store.strip()
                case _:
                    self._heard.append(line.decode().strip())
                    self._news.set()
        self._news.set()


class Worker(Running):
    """A process that runs the application, or ``ORMService`` alone, in a slot of the run."""

    def __init__(
        self, options: Options, slot: int, process: asyncio.subprocess.Process, *, is_before: bool = False
    ) -> None:
        super().__init__(options.number, process)
        self.options = options
        self.slot = slot
        self.stands_still = False
        # The version before takes entries of triggers, which have no image, for lost data, and builds all anew: while
        # others write, it may be on its way to Redis at any time.
        self._asks = [] if is_before else [name for queries in QUERIES.values() for name in queries.names]

    @property
    def answers(self) -> bool:
        """Whether queries are asked of it, and Redis may answer them."""
        asked = self.lives and not self.stands_still and not self.options.script
        return asked and self.options.redis is not None

    @property
    def on_redis(self) -> bool:
        """Whether the last query of each kind was answered by Redis."""
        return all(self.stores.get(kind) == "redis" for kind in self._asks)

    def stop(self) -> None:
        """SIGSTOP."""
        self.stands_still = True
        self.signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self.stands_still = False
        self.signal(signal.SIGCONT)

    async def is_stopped(self) -> None:
        """Waits until it stands still: it says that it is about to, and a SIGCONT that comes first is lost."""
        for _ in range(200):
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(self._process.pid).status() == psutil.STATUS_STOPPED:
                    return
            await asyncio.sleep(0.005)

"""One process of a run: an application under load from tasks of its own, everything recorded.

    python -m tests.acceptance.faults.worker '{"database": …}'

It takes orders from its standard input, a line each (see ``_Orders``), and tells on its standard output, a line each,
when it is ready, which store answers from now on, and which armed point it has reached.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from diptych import Command, ORMService
from diptych.context import request_scope
from tests.acceptance.faults import application as app
from tests.acceptance.faults.asking import told
from tests.acceptance.faults.commands import Step
from tests.acceptance.faults.history import Writer
from tests.acceptance.faults.load import Load, Options
from tests.acceptance.faults.models import Base
from tests.acceptance.faults.open_items import ChangeOpen, OpenCommands
from tests.acceptance.faults.points import Points, break_rule


def main() -> None:
    """Runs until told to quit."""
    options = msgspec.json.decode(sys.argv[1], type=Options)
    points = Points(_tell)
    points.install()
    if options.broken_rule is not None:
        break_rule(options.broken_rule)
    asyncio.run(_run(options, points))


async def _run(options: Options, points: Points) -> None:
    writer = Writer(Path(options.history))
    configuration = app.config(options.database, options.redis, options.lease_ms, **options.settings)
    async with contextlib.AsyncExitStack() as exits:
        load: Load
        if options.script:
            orm = ORMService(configuration)
            await orm.init(models=Base)
            await exits.enter_async_context(orm)
            load = Load(options, writer, _ScriptBus(orm), _tell)
        else:
            application = app.application(configuration, options.revision, renamed=options.renamed)
            load = Load(options, writer, await exits.enter_async_context(application), _tell)
        _tell("ready")
        load.start()
        await _Orders(load, points).follow()
        await load.stop()
    writer.close()
    _tell("ended")


def _tell(line: str) -> None:
    os.write(1, line.encode() + b"\n")


class _ScriptBus:
    """``ORMService`` alone, with the handlers of the application called directly."""

    def __init__(self, orm: ORMService) -> None:
        self._orm = orm
        self._commands = app.Commands(orm)

    async def execute(self, command: Command[Any]) -> Any:
        scope = request_scope.get() or {}
        write = int(dict(scope["headers"])[b"x-request-id"])
        handlers: dict[type, Callable[[Any], Awaitable[Any]]] = {
            app.AddItem: self._commands.add,
            app.ChangeItem: self._commands.change,
            app.DeleteItem: self._commands.delete,
            app.RecreateItem: self._commands.recreate,
            app.RenameItem: self._commands.rename,
            app.ChangeItems: self._commands.change_several,
            app.ChangeNothing: self._commands.change_nothing,
            app.RenameOwner: self._commands.rename_owner,
            app.LookAtItem: self._commands.look_at_item,
            app.LookAtOwner: self._commands.look_at_owner,
            app.ClaimItem: self._commands.claim,
            app.ChangeItemOnce: self._commands.change_once,
            ChangeOpen: OpenCommands(self._orm).change,
        }
        handler = handlers[type(command)]
        return await self._orm.side.units.run(
            lambda _unit: handler(command), app.context_of(write), type(command)
        )


class _Orders:
    """``arm point when action``, ``disarm``, ``do steps``, ``last action steps``, ``rebuild``, …"""

    def __init__(self, load: Load, points: Points) -> None:
        self._load = load
        self._points = points
        self._background: set[asyncio.Task[None]] = set()

    async def follow(self) -> None:
        """Returns at ``quit``, or when nobody can give orders any more."""
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        while line := (await lines.readline()).decode().split():
            match line:
                case ["arm", point, when, action]:
                    self._points.arm(point, when, action)
                case ["disarm"]:
                    self._points.disarm()
                case ["favour", hot, cold, *mix]:
                    self._load.favour(int(hot), int(cold), [int(weight) for weight in mix])
                case ["cancel", how]:
                    self._load.cancel_at_random(on=how == "on")
                case ["burst", key, count]:
                    self._in_background("burst", self._load.burst(key, int(count)))
                case ["do", *words]:
                    self._in_background("do", self._load.do(_steps(words)))
                case ["last", action, *words]:
                    self._in_background("last", self._last(action, _steps(words)))
                case ["rebuild"]:
                    self._in_background("rebuild", self._load.rebuild())
                case ["quit"]:
                    break
                case _:
                    raise ValueError(f"no such order: {line}")
        await asyncio.gather(*self._background)

    async def _last(self, action: str, steps: list[Step]) -> None:
        """Has the process die, or stop, between the commit of this command and all that follows it."""
        await self._load.stop_writing()
        self._points.arm("commit", "after", action)
        await self._load.do(steps)
        self._load.start_writing()

    def _in_background(self, name: str, work: Awaitable[None]) -> None:
        async def run() -> None:
            try:
                await work
            except Exception as error:
                _tell(" ".join(f"failed {name} {told(error)}".split()))
            else:
                _tell(f"finished {name}")

        task = asyncio.get_running_loop().create_task(run())
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _steps(words: list[str]) -> list[Step]:
    return msgspec.json.decode(" ".join(words), type=list[Step])


if __name__ == "__main__":
    main()

"""``--reload``: the workers start anew when a file of the application's source is changed."""

from __future__ import annotations

import logging
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import MissingExtraError

try:
    from watchfiles import PythonFilter, watch
except ModuleNotFoundError as error:
    raise MissingExtraError("--reload", "cli", error.name or "watchfiles") from None

if TYPE_CHECKING:
    from granian.server.common import AbstractServer
    from watchfiles import Change

_BEGUN_MS = 100
_STARTS = "diptych_starts"
_log = logging.getLogger("diptych.server")


def watch_before_start(server: AbstractServer[Any]) -> None:
    """Has the server watch files of Python, and of settings in TOML, from before its workers start.

    Granian's own watch begins after their start: what was changed meanwhile was missed, and a start that had failed
    waited for another change.
    """
    vars(server)["_serve_with_reloader"] = partial(_serve, server)


def starts_of(server: AbstractServer[Any]) -> int:
    """Returns how often the workers were started, all of them together."""
    started: int = vars(server).get(_STARTS, 0)
    return started


def _started(server: Any) -> None:
    vars(server)[_STARTS] = starts_of(server) + 1


def _serve(server: Any, spawn_target: Any, target_loader: Any) -> None:
    """Serves until the server is stopped; SIGHUP starts the workers anew, too."""
    start = server.startup
    while True:
        server.main_loop_interrupt.clear()
        if server.interrupt_signal:
            break
        begun = threading.Event()
        # Not those of the database, which every command changes.
        files = PythonFilter(extra_extensions=(".toml",))
        changes = watch(
            Path.cwd(),
            watch_filter=partial(_is_source, begun, files),
            stop_event=server.main_loop_interrupt,
            rust_timeout=_BEGUN_MS,
            yield_on_timeout=True,
        )
        next(changes, None)
        begun.set()
        _started(server)
        start(spawn_target, target_loader)
        if server.interrupt_signal:
            server.main_loop_interrupt.set()  # the start after SIGHUP has cleared it
        for changed in filter(None, changes):
            names = sorted({name for _, name in changed})
            _log.info("changed: %s; the workers start anew", ", ".join(names))
            server._stop_workers()
            _started(server)
            server._spawn_workers(spawn_target, target_loader)
        start = server._reload
    server.shutdown()


def _is_source(begun: threading.Event, files: PythonFilter, change: Change, path: str) -> bool:
    # Before, any change will do: beside a database that is written all the time no time-out would come.
    return not begun.is_set() or files(change, path)

"""The worker's part of serving: loading the application, and reporting its start to the parent."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn

from diptych.cli.served import redis_in_use
from diptych.cli.serving.connections import Connections
from diptych.cli.serving.guarded import Guarded, Listening
from diptych.cli.serving.under_way import UnderWay
from diptych.cli.target import add_current_directory, exit_code_of, load_target
from diptych.config.logs import log_what_python_writes, name_worker
from diptych.config.service import ConfigService
from diptych.errors import DiptychError

if TYPE_CHECKING:
    from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send

STOP_TIMEOUT_S = 20
"""Time for a worker to stop in good order, in seconds."""
_UNDER_WAY = 10_000  # objects: some hundred requests
_LONGEST_TEXT = 3500  # bytes; below 4096 a pipe never mixes what several workers write


def start_worker(
    target: str, factory: bool, pipe: Connection, listening: Listening, reload: bool, number: int
) -> Watched:
    """Prepares this worker process and returns its application; ends the process if the loading fails.

    ``number`` is that of the worker. With ``reload`` the process waits to be ended after a failure.
    """
    global _waits_to_be_ended
    _waits_to_be_ended = reload
    # Bytecode is told from a newer source by second and size alone: two changes within a second would be one.
    sys.dont_write_bytecode = sys.dont_write_bytecode or reload
    serving = threading.Event()
    if _is_process():
        name_worker(number)
        log_what_python_writes()
        threading.Thread(target=_end_with_parent, args=(serving,), daemon=True).start()
    add_current_directory()
    try:
        with _ending_on_sigterm():
            under_way = UnderWay({}, {})
            app = Guarded(load_target(target, factory), ConfigService().settings, listening.host, under_way)
            return Watched(
                app, pipe, serving, Connections(listening.port, listening.most_connections, under_way)
            )
    except (Exception, SystemExit) as error:
        _fail(pipe, error)


def _report(pipe: Connection, code: int, text: str) -> None:
    """Reports a start to the parent, with ``code`` 0 for a ready application. Only the first report of all workers
    is heeded."""
    pipe.send_bytes(bytes([code]) + text.encode("utf-8", "replace")[-_LONGEST_TEXT:])


def _fail(pipe: Connection, error: BaseException, message: str = "") -> NoReturn:
    """Reports why this worker cannot start, and ends the process."""
    code = exit_code_of(error)
    # The parent stops a run that never started. A worker that ended before would be taken for a crash.
    if _is_process():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _report(pipe, code, explain(error, message))
    while _waits_to_be_ended:
        time.sleep(60)
    time.sleep(2)
    os._exit(code)


_waits_to_be_ended = False


class Watched:
    """An ASGI application whose start is reported, by ``serving`` too; requests go straight to ``app``.

    From the start on its ``connections`` are looked after.
    """

    def __init__(
        self, app: ASGIApp, pipe: Connection, serving: threading.Event, connections: Connections
    ) -> None:
        self._app = app
        self._pipe = pipe
        self._serving = serving
        self._connections = connections

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "lifespan":
            return self._live(scope, receive, send)
        return self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: str | None = None
        started = False

        async def watch(message: Message) -> None:
            nonlocal refusal, started
            if message["type"] == "lifespan.startup.failed":
                refusal = message.get("message") or "the application said so, and not why"
                return
            if message["type"] == "lifespan.startup.complete":
                started = True
                _spare_the_collector()
                self._begin(starting)
            await send(message)

        starting = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
        if _is_process():
            _hear_sigterm_only()
        try:
            await self._app(scope, receive, watch)
        except BaseException as error:
            if refusal is not None:
                _fail(self._pipe, error, refusal)
            raise
        finally:
            if refusal is None and not started:
                self._begin(starting)  # the application has no lifespan, which the server allows
        if refusal is not None:
            _fail(self._pipe, RuntimeError(refusal), refusal)

    def _begin(self, starting: set[asyncio.Task[Any]]) -> None:
        _report(self._pipe, 0, redis_in_use())
        if _is_process():
            self._repeating = asyncio.create_task(_repeat_missed_signal(starting, self._serving))
            if sys.platform == "linux":
                self._connections.watch(asyncio.get_running_loop())


def _spare_the_collector() -> None:
    """Takes the loaded objects out of the garbage collector's sight, and makes collections rarer.

    Loaded objects stay for good. The collector would look through all of them again and again, and each time no
    request would be answered for some 50 ms. It also runs whenever there are 700 objects more (2,000 from Python 3.13
    on) than the last time: a few dozen requests under way at once have as many, and are no garbage. An application
    that has set a higher threshold already, or none, is left alone.
    """
    gc.collect()
    gc.freeze()
    first, *others = gc.get_threshold()
    if 0 < first < _UNDER_WAY:
        gc.set_threshold(_UNDER_WAY, *others)


def _is_process() -> bool:
    return multiprocessing.parent_process() is not None  # else a thread, under a Python without the GIL


@contextmanager
def _ending_on_sigterm() -> Iterator[None]:
    # A worker is born with SIGINT and SIGTERM blocked: the inherited handlers would swallow them. Both are blocked
    # again until the loop of the server, whose handlers come next, runs and hears them.
    if not _is_process():
        yield
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    yield
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})


def _hear_sigterm_only() -> None:
    # Ctrl+C reaches every process of a terminal, and the parent then stops its workers with SIGTERM. The
    # server's worker hangs if both come while it starts.
    asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: None)
    # Processes started by the application would inherit the blocked signals, and could not be stopped.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})


_TURNS_TO_PAUSE = 10  # more turns than a loop takes to end after the task it was run for; uvloop takes three


async def _repeat_missed_signal(starting: set[asyncio.Task[Any]], serving: threading.Event) -> None:
    # The server runs its loop for the tasks of the start, pauses, and runs it again to serve. uvloop misses a
    # SIGTERM that comes in the pause, and the worker would not stop.
    came = False

    def note(*_: object) -> None:
        nonlocal came
        came = True

    signal.signal(signal.SIGTERM, note)
    if starting:
        await asyncio.wait(starting)
    for _ in range(_TURNS_TO_PAUSE):  # the last of these turns come after the pause
        await asyncio.sleep(0)
    serving.set()
    if came:
        os.kill(os.getpid(), signal.SIGTERM)


def _end_with_parent(serving: threading.Event) -> None:
    # Killed with SIGKILL, the parent cannot stop its workers, and they would keep the port for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        if serving.is_set():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(STOP_TIMEOUT_S)
        os._exit(1)


def explain(error: BaseException, message: str = "") -> str:
    """Returns an error as text: an error of diptych without, any other with its traceback, from the application on.

    ``message`` is the application's own text about the error, in place of the traceback.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, DiptychError):
        return str(error)
    return (
        message or "".join(traceback.format_exception(error.with_traceback(_of_application(error)))).rstrip()
    )


def _of_application(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace and re.search(r"diptych/cli/|importlib", trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    return trace

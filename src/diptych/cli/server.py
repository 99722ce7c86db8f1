"""Serving an application: the parent's part, from the check of the request to the clean stop."""

from __future__ import annotations

import contextlib
import logging
import logging.config
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NoReturn

from diptych.cli.embedded import EmbeddedValkey
from diptych.cli.http_server import make_server
from diptych.cli.served import Serving, log_serving, print_serving, with_redis
from diptych.cli.serving.guarded import Listening
from diptych.cli.serving.limits import most_connections
from diptych.cli.target import (
    CommandError,
    add_current_directory,
    await_listening,
    check_target,
    exit_code_of,
    free_address,
    url_of,
)
from diptych.cli.worker import STOP_TIMEOUT_S, start_worker
from diptych.config.logs import has_one_form, logging_config
from diptych.config.service import ConfigService
from diptych.config.setting import PREFIX
from diptych.config.settings import Settings
from diptych.config.urls import check_redis_url, mask
from diptych.errors import ConfigurationError, DiptychError

if TYPE_CHECKING:
    from granian.server.common import AbstractServer


def serve(
    target: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int | None = None,
    redis: str | None = None,
    factory: bool = False,
    access_log: bool = False,
    reload: bool = False,
    log_level: str | None = None,
    log_format: str | None = None,
    announce: Callable[[Serving], None] | None = None,
    prepare: Callable[[], object] | None = None,
) -> None:
    """Serves the ASGI application ``target`` ("module:attribute") until SIGINT or SIGTERM, then returns.

    ``redis`` is "embedded" (a Valkey of our own), "none", a URL, or None, for the setting REDIS_URL. The workers
    find the Redis as DIPTYCH_REDIS_URL, and their number as DIPTYCH_WORKERS; ``workers``, ``log_level`` and
    ``log_format`` None take the settings of their names. ``port`` 0 takes any free port. With ``reload`` the workers
    start anew when a source file of the current directory is changed. ``prepare`` is called when target and settings
    are checked and the port is free, ``announce`` in a thread when the first worker is ready; by default a line is
    printed, and logged as JSON where that is the format. Call ``serve`` from the main thread, and from below
    ``if __name__ == "__main__"``, because a spawned worker imports the main module again.

    If the application cannot be served, the reason goes to standard error, and SystemExit is raised: with 2 for a
    wrong target or setting, with 1 for all else (the port is in use, the application fails to start).
    """
    try:
        with _stopping_on_signals():
            add_current_directory()
            check_target(target)
            address = free_address(host, port)
            chosen = {"WORKERS": workers, "LOG_LEVEL": log_level, "LOG_FORMAT": log_format}
            with _redis(redis), _environment(_variables(chosen)):
                settings = ConfigService().settings  # which include what was chosen
                asked = None if redis is None else mask(redis)
                serving = Serving(target, url_of(*address), settings.workers, None, asked)
                with _environment(_variables({"WORKERS": settings.workers})):
                    if prepare is not None:
                        prepare()
                    say = announce or (log_serving if settings.log_format == "JSON" else print_serving)
                    listening = Listening(*address, most_connections(settings))
                    _Run(serving, say, reload=reload).serve(listening, settings, factory, access_log)
    except DiptychError as error:
        _tell(error, log_format)
        raise SystemExit(exit_code_of(error)) from None


def _tell(error: DiptychError, log_format: str | None) -> None:
    """Tells why nothing is served: as JSON where that is the format, which nobody knows of faulty settings."""
    with contextlib.suppress(ConfigurationError):
        log_format = log_format or ConfigService().settings.log_format
    if (log_format or "").upper() != "JSON":
        print(f"Error: {error}", file=sys.stderr, flush=True)
        return
    if not has_one_form():
        logging.config.dictConfig(logging_config("INFO", "JSON"))
    _log.critical("%s", error)


class _Run:
    """A run of the server, until a signal stops the run or the first worker reports a failure.

    With ``reload`` a failure is told, and the run goes on: the next change may mend it.
    """

    def __init__(self, serving: Serving, announce: Callable[[Serving], None], *, reload: bool) -> None:
        self._serving = serving
        self._announce = announce
        self._reload = reload
        self._failure: CommandError | None = None

    def serve(self, listening: Listening, settings: Settings, factory: bool, access_log: bool) -> None:
        server = make_server(self._serving, listening, settings, access_log=access_log, reload=self._reload)
        if listening.most_connections < settings.max_connections:
            _log.warning(
                "%d connections at once at most for each process, since it has no file descriptors for the %d of "
                "MAX_CONNECTIONS: raise the limit (ulimit -n)",
                *(listening.most_connections, settings.max_connections),
            )
        receiver, sender = multiprocessing.Pipe(duplex=False)
        loader = partial(start_worker, self._serving.target, factory, sender, listening, self._reload)
        with _waiting_for_signals(partial(_stop, server)) as received:
            threading.Thread(target=self._await_starts, args=(server, receiver), daemon=True).start()
            try:
                server.serve(target_loader=loader, wrap_loader=False)
            except SystemExit:
                self._failure = self._failure or CommandError(
                    f"the workers of {self._serving.target} kept ending by themselves: see above"
                )
            except RuntimeError as error:  # another program took the port: the first line says so
                problem = str(error).partition("\n")[0]
                raise CommandError(f"cannot listen at {self._serving.url}: {problem}") from error
        if self._failure is not None:
            raise self._failure
        _log.info("stopped %s (%s)", self._serving.target, ", ".join(received) or "by itself")

    def _await_starts(self, server: AbstractServer[Any], receiver: Connection) -> None:
        is_announced, told = False, set[tuple[int, bytes]]()
        # The first report is that of the run; with ``reload`` that of each start is told, and not of each worker.
        while self._reload or not (is_announced or self._failure):
            try:
                report = receiver.recv_bytes()
            except EOFError:
                return  # stopped before any worker had started
            of_start = self._starts(server), report if report[0] else b""
            if of_start in told:
                continue
            told = {one for one in told if one[0] == of_start[0]} | {of_start}
            if report[0]:
                self._fail(server, _failure_of(self._serving.target, report))
                continue
            await_listening(self._serving.url)
            if is_announced:
                _log.info("%s has started anew", self._serving.target)
            else:
                self._announce(with_redis(self._serving, report[1:]))
            is_announced = True

    def _starts(self, server: AbstractServer[Any]) -> int:
        if not self._reload:
            return 0
        from diptych.cli.reload import starts_of  # which needs a package of its own

        return starts_of(server)

    def _fail(self, server: AbstractServer[Any], failure: CommandError) -> None:
        if self._reload:
            _log.error("%s\nThe next change of a file starts it again.", failure)
        else:
            self._failure = failure
            _stop(server)


def _failure_of(target: str, report: bytes) -> CommandError:
    text = report[1:].decode("utf-8", "replace")
    gap = "\n" if "\n" in text else " "
    return CommandError(f"{target} cannot start:{gap}{text}", report[0])


def _stop(server: AbstractServer[Any]) -> None:
    """Makes the server stop its workers in good order; kills the workers still there after the time-out."""

    def kill() -> None:
        for worker in list(server.wrks):
            worker.kill()

    server.signal_handler_interrupt()  # type: ignore[no-untyped-call]
    # The server's own time limit reports, once in a hundred stops, a worker as hanging that has just ended.
    timer = threading.Timer(STOP_TIMEOUT_S, kill)
    timer.daemon = True
    timer.start()


_log = logging.getLogger("diptych.server")


@contextmanager
def _redis(choice: str | None) -> Iterator[None]:
    """Runs the chosen Redis, if our own, and tells the workers its URL by the environment."""
    if choice is None:
        yield
    elif choice == "embedded":
        with EmbeddedValkey() as valkey, _environment({"DIPTYCH_REDIS_URL": valkey.url}):
            yield
    else:
        try:
            url = choice if choice == "none" else check_redis_url(choice)
        except ValueError as error:
            raise ConfigurationError("--redis", f"{error}, or be one of embedded, none") from None
        with _environment({"DIPTYCH_REDIS_URL": url}):
            yield


def _variables(chosen: Mapping[str, object]) -> dict[str, str]:
    return {f"{PREFIX}{name}": str(value) for name, value in chosen.items() if value is not None}


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _stopping_on_signals() -> Iterator[None]:
    """Makes SIGINT and SIGTERM unwind the stack until the server handles them, so that nothing stays behind."""

    def stop(*_: object) -> NoReturn:
        raise SystemExit(0)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _waiting_for_signals(stop: Callable[[], object]) -> Iterator[list[str]]:
    """Starts a thread that waits for SIGINT and SIGTERM and calls ``stop``; blocks both signals everywhere else.

    Yields the list of the names of the signals that came.

    So a worker is born with both blocked. With the server's handlers, a worker without handlers of its own yet would
    swallow a SIGTERM, and the server would wait for that worker.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    ended = False
    received: list[str] = []

    def wait() -> None:
        while (number := signal.sigwait(signals)) and not ended:
            received.append(signal.Signals(number).name)
            stop()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    try:
        yield received
    finally:
        ended = True
        signal.pthread_kill(waiter.ident or 0, signal.SIGTERM)
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

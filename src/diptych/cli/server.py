"""Serving an application: the parent's part, from the check of the request to the clean stop."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from diptych.cli.embedded import EmbeddedValkey
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
from diptych.config.service import ConfigService
from diptych.config.urls import check_redis_url, mask
from diptych.errors import ConfigurationError, DiptychError, MissingExtraError

if TYPE_CHECKING:
    from granian.server.common import AbstractServer


class Serving(NamedTuple):
    """Facts about a server: its target and URL, the number of workers, and the Redis asked for (passwords masked)."""

    target: str
    url: str
    workers: int
    redis: str | None


def print_serving(serving: Serving) -> None:
    """Prints the target and its URL, and how to stop the server."""
    details = [f"{serving.workers} worker{'s' if serving.workers > 1 else ''}"]
    if serving.redis is not None:
        details.append({"embedded": "embedded Valkey", "none": "no Redis"}.get(serving.redis, serving.redis))
    print(f"Serving {serving.target} at {serving.url} ({', '.join(details)}); Ctrl+C stops it.", flush=True)


def serve(
    target: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int | None = None,
    redis: str | None = None,
    factory: bool = False,
    access_log: bool = False,
    announce: Callable[[Serving], None] = print_serving,
    prepare: Callable[[], object] | None = None,
) -> None:
    """Serves the ASGI application ``target`` ("module:attribute") until SIGINT or SIGTERM, then returns.

    ``redis`` is "embedded" (a Valkey of our own), "none", a URL, or None, for the setting REDIS_URL. The workers
    find the Redis as DIPTYCH_REDIS_URL, and their number as DIPTYCH_WORKERS; ``workers`` None takes the setting
    WORKERS. ``port`` 0 takes any free port. ``prepare`` is called when target and settings are checked and the port
    is free, ``announce`` in a thread when the first worker is ready. Call ``serve`` from the main thread, and from
    below ``if __name__ == "__main__"``, because a spawned worker imports the main module again.

    If the application cannot be served, the reason goes to standard error, and SystemExit is raised: with 2 for a
    wrong target or setting, with 1 for all else (the port is in use, the application fails to start).
    """
    try:
        with _stopping_on_signals():
            add_current_directory()
            check_target(target)
            address = free_address(host, port)
            with _redis(redis):
                number = workers or ConfigService().settings.workers  # which include the chosen Redis
                shown = None if redis is None else mask(redis)
                serving = Serving(target, url_of(*address), number, shown)
                with _environment({"DIPTYCH_WORKERS": str(number)}):
                    if prepare is not None:
                        prepare()
                    _Run(serving, announce).serve(address, factory, access_log)
    except DiptychError as error:
        print(f"Error: {error}", file=sys.stderr, flush=True)
        raise SystemExit(exit_code_of(error)) from None


class _Run:
    """A run of the server, until a signal stops the run or the first worker reports a failure."""

    def __init__(self, serving: Serving, announce: Callable[[Serving], None]) -> None:
        self._serving = serving
        self._announce = announce
        self._failure: CommandError | None = None

    def serve(self, address: tuple[str, int], factory: bool, access_log: bool) -> None:
        server = _granian(self._serving, address, access_log)
        receiver, sender = multiprocessing.Pipe(duplex=False)
        loader = partial(start_worker, self._serving.target, factory, sender)
        with _waiting_for_signals(partial(_stop, server)):
            threading.Thread(target=self._await_start, args=(server, receiver), daemon=True).start()
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

    def _await_start(self, server: AbstractServer[Any], receiver: Connection) -> None:
        try:
            report = receiver.recv_bytes()
        except EOFError:
            return  # stopped before any worker had started
        if code := report[0]:
            text = report[1:].decode("utf-8", "replace")
            gap = "\n" if "\n" in text else " "
            self._failure = CommandError(f"{self._serving.target} cannot start:{gap}{text}", code)
            _stop(server)
        else:
            await_listening(self._serving.url)
            self._announce(self._serving)


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


def _granian(serving: Serving, address: tuple[str, int], access_log: bool) -> AbstractServer[Any]:
    try:
        from granian import Granian
        from granian.constants import Interfaces
        from granian.log import LogLevels
    except ModuleNotFoundError as error:
        raise MissingExtraError("serving", "cli", error.name or "granian") from None
    # Granian's default loop is uvloop where that is installed, else asyncio's. Threads and backpressure are left to
    # Granian, as its documentation advises for ASGI.
    return Granian(
        serving.target,
        address=address[0],
        port=address[1],
        interface=Interfaces.ASGI,
        workers=serving.workers,
        websockets=False,
        respawn_failed_workers=True,
        log_level=LogLevels.warning,
        log_dictconfig=_LOGGING,
        log_access=access_log,
    )


_LOGGING: dict[str, Any] = {
    "formatters": {
        "line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"},
        "access": {"format": "%(message)s"},
    },
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": "line", "stream": "ext://sys.stderr"},
        "access": {"class": "logging.StreamHandler", "formatter": "access", "stream": "ext://sys.stdout"},
    },
    "loggers": {
        "diptych": {"level": "INFO"},
        "granian.access": {"handlers": ["access"], "level": "INFO", "propagate": False},
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
}


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
def _waiting_for_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Starts a thread that waits for SIGINT and SIGTERM and calls ``stop``; blocks both signals everywhere else.

    So a worker is born with both blocked. With the server's handlers, a worker without handlers of its own yet would
    swallow a SIGTERM, and the server would wait for that worker.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    ended = False

    def wait() -> None:
        while signal.sigwait(signals) and not ended:
            stop()

    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    waiter = threading.Thread(target=wait, daemon=True)
    waiter.start()
    try:
        yield
    finally:
        ended = True
        signal.pthread_kill(waiter.ident or 0, signal.SIGTERM)
        waiter.join()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

"""The HTTP server of ``diptych run``: Granian, as it is set up here."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from diptych.cli.served import Serving
from diptych.cli.serving.guarded import Listening
from diptych.cli.worker import STOP_TIMEOUT_S
from diptych.config.access import FORMAT
from diptych.config.logs import log_what_python_writes, logging_config
from diptych.config.settings import Settings
from diptych.errors import MissingExtraError

if TYPE_CHECKING:
    from granian.server.common import AbstractServer

_LONGEST_HEAD = 65_536  # bytes that are kept of a head, for each connection
_BACKLOG = 4_096  # connections that wait to be accepted; the system may have a lower limit


def make_server(
    serving: Serving, listening: Listening, settings: Settings, *, access_log: bool, reload: bool
) -> AbstractServer[Any]:
    """Returns the server, which calls the loader of each worker with the number of the worker, from 1.

    Logging is set up too. Raises ``MissingExtraError``.
    """
    try:
        from granian import Granian
        from granian.constants import Interfaces
        from granian.log import LogLevels
    except ModuleNotFoundError as error:
        raise MissingExtraError("serving", "cli", error.name or "granian") from None
    # Granian's default loop is uvloop where that is installed, else asyncio's. Threads are left to Granian, as its
    # documentation advises for ASGI.
    server = Granian(
        serving.target,
        address=listening.host,
        port=listening.port,
        interface=Interfaces.ASGI,
        workers=serving.workers,
        websockets=False,
        respawn_failed_workers=True,
        log_level=LogLevels.debug if settings.log_level == "DEBUG" else LogLevels.warning,
        log_dictconfig=logging_config(settings.log_level, settings.log_format),
        log_access=access_log,
        log_access_format=FORMAT,
        **_limits(listening, settings),
        **(_reloading() if reload else {}),
    )
    log_what_python_writes()
    _number_workers(server)
    if reload:
        from diptych.cli.reload import watch_before_start

        watch_before_start(server)
    return server


def _limits(listening: Listening, settings: Settings) -> dict[str, Any]:
    from granian.constants import HTTPModes
    from granian.http import HTTP1Settings

    return {
        "http": HTTPModes.auto if settings.http2 else HTTPModes.http1,
        "http1_settings": HTTP1Settings(
            header_read_timeout=round(settings.head_timeout_s * 1000), max_buffer_size=_LONGEST_HEAD
        ),
        "backlog": _BACKLOG,
        "backpressure": listening.most_connections,  # Granian's word for connections
    }


def _reloading() -> dict[str, Any]:
    return {
        "reload": True,
        "reload_ignore_worker_failure": True,
        "workers_kill_timeout": STOP_TIMEOUT_S,
    }


def _number_workers(server: AbstractServer[Any]) -> None:
    """Has each worker's loader called with the number of the worker, which Granian keeps to itself."""
    spawn: Callable[..., Any] = server._spawn_worker

    def spawn_numbered(*, idx: int, target: Any, callback_loader: Any) -> Any:
        return spawn(idx=idx, target=target, callback_loader=partial(callback_loader, idx + 1))

    vars(server)["_spawn_worker"] = spawn_numbered

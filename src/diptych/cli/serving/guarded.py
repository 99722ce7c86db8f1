"""The guards that ``diptych run`` puts around an application of any framework."""

from __future__ import annotations

import ipaddress
import logging
import time
from typing import NamedTuple

from diptych.cli.serving.under_way import UnderWay
from diptych.config.settings import Settings
from diptych.context import request_scope
from diptych.http import AllowedHosts, BodyTimeout, Forwarded
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.http.errors import BadRequest
from diptych.http.guards.body_timeout import WITHOUT_BODY
from diptych.http.guards.hosts import LOOPBACK
from diptych.http.guards.refusal import refuse


class Listening(NamedTuple):
    """The address of a server, and the greatest number of connections of each of its processes."""

    host: str
    port: int
    most_connections: int


class Guarded:
    """An application of any framework behind the guards of ``diptych run``; ``host`` is the address of the server.

    ``under_way`` will have the requests that the application has not come to the end of.

    The guards are asked here rather than wrapped around each other: a coroutine of each costs a query that Redis
    answers more than the guards themselves.
    """

    def __init__(self, app: ASGIApp, settings: Settings, host: str, under_way: UnderWay) -> None:
        self._app = app
        self._with_body = BodyTimeout(app, settings.body_timeout_s, settings.body_bytes_per_s)
        self._fault_of = AllowedHosts(app, settings.allowed_hosts or _names_of(host)).fault_of
        proxies = settings.forwarded_allow_ips
        self._take_client = Forwarded(app, proxies).take_client if proxies else None
        self._clients, self._waits_since = under_way
        logging.getLogger("_granian.utils").addFilter(_is_no_failure)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":  # the lifespan: no websockets are served
            await self._app(scope, receive, send)
            return
        request = id(scope)
        self._clients[request] = scope["client"]
        try:
            fault = self._fault_of(scope)
            if fault is not None:
                await refuse(BadRequest(fault), send)
                return
            if self._take_client is not None:
                self._take_client(scope)
            if scope["method"] in WITHOUT_BODY:
                await self._app(scope, receive, send)
            else:
                await self._with_body(scope, self._noting(scope, receive), send)
        except BaseException:
            _log_failed(scope)
            raise
        finally:
            del self._clients[request]

    def _noting(self, scope: Scope, receive: Receive) -> Receive:
        is_whole = False

        async def receive_noted() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            request = id(scope)  # kept alive by this function: a body may be awaited beyond its request
            self._waits_since[request] = time.monotonic()
            try:
                message = await receive()
            finally:
                self._waits_since.pop(request, None)
            is_whole = not message.get("more_body", False)
            return message

        return receive_noted


def _log_failed(scope: Scope) -> None:
    """Logs the error of a request, with the request that the line is about."""
    token = request_scope.set(scope)
    try:
        _log.exception("%s %s failed", scope["method"], scope["path"])
    finally:
        request_scope.reset(token)


def _is_no_failure(record: logging.LogRecord) -> bool:
    """Returns False for the server's own line about the same error: it does not know the request."""
    return not record.getMessage().startswith("Application callable raised an exception")


_log = logging.getLogger("diptych.server")


def _names_of(host: str) -> tuple[str, ...]:
    return (*LOOPBACK, host) if ipaddress.ip_address(host).is_loopback else ("*",)

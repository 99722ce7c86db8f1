"""The guards that ``diptych run`` puts around an application of any framework."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple

from diptych.cli.serving.connections import Client
from diptych.config.settings import Settings
from diptych.http import AllowedHosts, BodyTimeout, Forwarded
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.http.guards.body_timeout import WITHOUT_BODY
from diptych.http.guards.hosts import LOOPBACK


class Listening(NamedTuple):
    """The address of a server, and the greatest number of connections of each of its processes."""

    host: str
    port: int
    most_connections: int


def guarded(app: ASGIApp, settings: Settings, host: str, under_way: set[Client]) -> ASGIApp:
    """Returns ``app`` behind its guards. ``under_way`` will have the clients whose request is being answered."""
    app = BodyTimeout(app, settings.body_timeout_s, settings.body_bytes_per_s)
    if settings.forwarded_allow_ips:
        app = Forwarded(app, settings.forwarded_allow_ips)
    app = AllowedHosts(app, settings.allowed_hosts or _names_of(host))
    return UnderWay(app, under_way)


def _names_of(host: str) -> tuple[str, ...]:
    return (*LOOPBACK, host) if ipaddress.ip_address(host).is_loopback else ("*",)


class UnderWay:
    """Keeps in ``clients`` those whose request is being answered.

    Such a request is in the application, and the application waits for nothing of its body.
    """

    def __init__(self, app: ASGIApp, clients: set[Client]) -> None:
        self._app = app
        self._clients = clients

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client = scope["client"]
        self._clients.add(client)
        try:
            if scope["method"] not in WITHOUT_BODY:
                receive = self._noting(client, receive)
            await self._app(scope, receive, send)
        finally:
            self._clients.discard(client)

    def _noting(self, client: Client, receive: Receive) -> Receive:
        is_whole = False

        async def receive_noted() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            self._clients.discard(client)
            try:
                message = await receive()
            finally:
                self._clients.add(client)
            is_whole = not message.get("more_body", False)
            return message

        return receive_noted

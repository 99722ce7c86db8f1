"""The names under which a server may be asked.

A page of another site can make its own name lead to this machine (DNS rebinding): its browser then takes this server
for that site, and lets the page read and change whatever is served. The browser still sends that name as `Host`.
"""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Iterable

from diptych.http.asgi import ASGIApp, Receive, Scope, Send
from diptych.http.errors import BadRequest
from diptych.http.guards.refusal import refuse

LOOPBACK = ("localhost", "*.localhost", "127.0.0.1", "::1")
"""The names of a server that only this machine reaches. No other site's page can have one of them."""

_HOST = re.compile(rb"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_.-]{1,255}))(?::[0-9]{0,5})?")
_MALFORMED = "the Host header is malformed"
_LONGEST = 300  # bytes; longer values are malformed, and none is remembered
_ENTRIES = 256
_TOLD = 20  # names that the log tells at most: clients choose them

_log = logging.getLogger("diptych.http")


class AllowedHosts:
    """Refuses requests with 400 whose `Host` is missing, doubled, malformed, or none of `names`.

    A name is compared without its port, in any case. `*.example.org` are the names below example.org, and `*` is any
    name. An address of IPv6 is written without brackets.

    >>> import asyncio
    >>> from diptych.http import AllowedHosts
    >>> async def site(scope, receive, send):
    ...     print("served")
    >>> async def send(message):
    ...     print(message.get("status", ""))
    >>> app = AllowedHosts(site, ["shop.example", "*.shop.example"])
    >>> for host in (b"www.shop.example:8000", b"evil.example"):
    ...     asyncio.run(app({"type": "http", "headers": [(b"host", host)]}, None, send))
    served
    400
    <BLANKLINE>
    """

    def __init__(self, app: ASGIApp, names: Iterable[str] = ("*",)) -> None:
        self._app = app
        given = [name.lower() for name in names]
        self._is_any = "*" in given
        self._names = frozenset(given)
        self._suffixes = tuple(name[1:] for name in given if name.startswith("*."))
        self._told = 0
        self._fault_of = functools.lru_cache(maxsize=_ENTRIES)(self._find_fault)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        fault = None if scope["type"] == "lifespan" else self.fault_of(scope)
        if fault is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await refuse(BadRequest(fault), send)

    def fault_of(self, scope: Scope) -> str | None:
        """Returns what is wrong with the `Host` of a request, in words; None if nothing is."""
        host: bytes | None = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    return "the request has several Host headers"
                host = value
        host = host or b""
        return _MALFORMED if len(host) > _LONGEST else self._fault_of(host)

    def _find_fault(self, host: bytes) -> str | None:
        """Returns what is wrong with the value of `Host`, in words; None if nothing is."""
        if not host:
            return "the request has no Host header"
        found = _HOST.fullmatch(host)
        if found is None:
            return _MALFORMED
        name = (found[1] or found[2]).decode("ascii").lower().removesuffix(".")
        if self._is_any or name in self._names or (self._suffixes and name.endswith(self._suffixes)):
            return None
        self._tell(name)
        return "this server does not answer under this name; ALLOWED_HOSTS lists the names of this server"

    def _tell(self, name: str) -> None:
        self._told += 1
        if self._told <= _TOLD:
            rest = "; no more names are logged" if self._told == _TOLD else ""
            _log.warning(
                "a request for the host %s was refused: put that name into ALLOWED_HOSTS if it is yours%s",
                *(name, rest),
            )

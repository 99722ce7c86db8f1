"""The client as a proxy in front of the server tells of it: its address, and whether it came over TLS."""

from __future__ import annotations

import functools
import ipaddress
import re
from collections.abc import Iterable

from diptych.http.asgi import ASGIApp, Receive, Scope, Send, header_values, list_elements

_ADDRESS = re.compile(r"\[(?P<v6>[^\]]*)\](?::\d+)?|(?P<v4>[^:]*)(?::\d+)?|(?P<bare>.*)")
_SCHEMES = {"http": ("http", "ws"), "https": ("https", "wss")}
_ENTRIES = 1024


class Forwarded:
    """Takes client and scheme of a request from `X-Forwarded-For` and `X-Forwarded-Proto`, if a proxy sent them.

    `proxies` are the addresses and networks (10.0.0.0/8) of proxies whose word counts; `*` is any client, for a
    server that only its proxy can reach. Of anybody else these headers are ignored: everybody can send them. The
    client is the last address that no such proxy has, since each proxy adds the one that it was asked from; the
    scheme is the last that was said.

    >>> import asyncio
    >>> from diptych.http import Forwarded
    >>> async def site(scope, receive, send):
    ...     print(scope["scheme"], scope["client"][0])
    >>> headers = [(b"x-forwarded-proto", b"https"), (b"x-forwarded-for", b"203.0.113.7")]
    >>> app = Forwarded(site, ["10.0.0.0/8"])
    >>> for peer in ("10.0.0.2", "192.0.2.1"):
    ...     scope = {"type": "http", "scheme": "http", "client": (peer, 4711), "headers": headers}
    ...     asyncio.run(app(scope, None, None))
    https 203.0.113.7
    http 192.0.2.1
    """

    def __init__(self, app: ASGIApp, proxies: Iterable[str]) -> None:
        self._app = app
        given = tuple(proxies)
        self._is_any = "*" in given
        self._networks = [ipaddress.ip_network(proxy, strict=False) for proxy in given if proxy != "*"]
        self._is_proxy = functools.lru_cache(maxsize=_ENTRIES)(self._is_in_networks)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI application."""
        if scope["type"] != "lifespan":
            self.take_client(scope)
        await self._app(scope, receive, send)

    def take_client(self, scope: Scope) -> None:
        """Writes client and scheme into the ``scope`` of a request, if a proxy sent it.

        The server's own scope is changed, so that its access log has the client too.
        """
        client = scope.get("client")
        if not client or not self._is_proxy(client[0]):
            return
        if found := self._client_of(scope):
            scope["client"] = (found, 0)
        said = list_elements(",".join(header_values(scope, b"x-forwarded-proto")).lower())
        if said and said[-1] in _SCHEMES:
            scope["scheme"] = _SCHEMES[said[-1]][scope["type"] == "websocket"]

    def _client_of(self, scope: Scope) -> str | None:
        """Returns the last address that is no proxy's; the first of all, if they are all proxies'."""
        client = None
        for element in reversed(list_elements(",".join(header_values(scope, b"x-forwarded-for")))):
            found = _ADDRESS.fullmatch(element)
            try:
                client = str(ipaddress.ip_address((found and found[found.lastgroup or 0]) or ""))
            except ValueError:  # "unknown", or no address at all: nobody knows who stands behind
                break
            if not self._is_proxy(client):
                break
        return client

    def _is_in_networks(self, address: str) -> bool:
        if self._is_any:
            return True
        try:
            found = ipaddress.ip_address(address)
        except ValueError:  # a path, of a socket of the file system
            return False
        found = getattr(found, "ipv4_mapped", None) or found
        return any(found in network for network in self._networks)

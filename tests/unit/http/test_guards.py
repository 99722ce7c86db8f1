"""The wrappers against what servers let through: names of hosts, forwarded addresses, bodies that trickle."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterable
from typing import Any

import pytest

from diptych.http import AllowedHosts, BodyTimeout, ClientDisconnected, Forwarded, read_body
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.http.guards.hosts import LOOPBACK

Pairs = Iterable[tuple[bytes, bytes]]


class Site:
    """Remembers the scope of the last request, and answers with 204."""

    def __init__(self) -> None:
        self.scope: Scope | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})


async def ask(
    app: ASGIApp, headers: Pairs = (), receive: Receive | None = None, **changes: Any
) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def nothing() -> Message:
        return {"type": "http.request", "body": b""}

    scope = {"type": "http", "method": "POST", "scheme": "http", "client": ("10.0.0.2", 4711), **changes}
    await app({**scope, "headers": list(headers)}, receive or nothing, send)
    return sent


# Hosts


async def status_for(app: ASGIApp, *hosts: bytes) -> int:
    return int((await ask(app, [(b"host", host) for host in hosts]))[0]["status"])


@pytest.mark.parametrize(
    "hosts",
    [
        *((), (b"",), (b"a", b"a"), (b"", b"a"), (b"a b",), (b"a/b",), (b"user@a",), (b"a:1:2",), (b"a:x",)),
        *((b"[::1",), (b"::1",), (b"a:123456",), (b"a,b",), (b"\xff",), (b"a" * 301,), (b"[]",), (b"a\n",)),
    ],
)
async def test_a_host_that_is_missing_doubled_or_malformed_is_400_where_any_name_is_allowed(
    hosts: tuple[bytes, ...],
) -> None:
    site = Site()
    start, body = await ask(AllowedHosts(site), [(b"host", host) for host in hosts])
    assert (start["status"], site.scope) == (400, None)
    assert "Host header" in json.loads(body["body"])["detail"]
    assert dict(start["headers"])[b"x-content-type-options"] == b"nosniff"


@pytest.mark.parametrize(
    "host", [b"a", b"A.example:80", b"a.example.", b"127.0.0.1:8000", b"[::1]:1", b"x_y:"]
)
async def test_any_well_formed_host_is_served_by_default(host: bytes) -> None:
    assert await status_for(AllowedHosts(Site()), host) == 204


async def test_only_the_allowed_names_are_served(caplog: pytest.LogCaptureFixture) -> None:
    app = AllowedHosts(Site(), ["shop.example", "*.Shop.example", "::1"])
    for host in (b"shop.example", b"SHOP.example:8000", b"a.b.shop.example", b"shop.example.", b"[::1]:80"):
        assert await status_for(app, host) == 204
    with caplog.at_level(logging.WARNING):
        for host in (b"evil.example", b"evilshop.example", b"shop.example.evil.example", b"[::2]"):
            assert await status_for(app, host) == 400
            assert await status_for(app, host) == 400
    assert len(caplog.messages) == 4, "each name once"
    assert "the host evil.example was refused: put that name into ALLOWED_HOSTS" in caplog.messages[0]


async def test_the_log_does_not_grow_with_the_names_that_clients_invent(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = AllowedHosts(Site(), LOOPBACK)
    for number in range(100):
        assert await status_for(app, b"n%d.example" % number) == 400
    assert len(caplog.messages) == 20
    assert caplog.messages[-1].endswith("no more names are logged")


async def test_a_socket_of_another_name_is_closed_and_a_lifespan_passes() -> None:
    site = Site()
    app = AllowedHosts(site, LOOPBACK)
    assert await ask(app, [(b"host", b"evil")], type="websocket") == [{"type": "websocket.close"}]
    await ask(app, type="lifespan")
    assert site.scope is not None


# Forwarding

CLIENT, PROXY, OUTER = "203.0.113.7", "10.0.0.2", "10.1.0.1"


@pytest.mark.parametrize(
    ("sent", "client", "scheme"),
    [
        ({"for": CLIENT, "proto": "https"}, CLIENT, "https"),
        ({"for": f"1.2.3.4, {CLIENT}, {OUTER}", "proto": "http, HTTPS"}, CLIENT, "https"),
        ({"for": f"{CLIENT}:4711"}, CLIENT, "http"),
        ({"for": "[2001:db8::1]:80"}, "2001:db8::1", "http"),
        ({"for": "2001:db8::1"}, "2001:db8::1", "http"),
        ({"for": f"{OUTER}, {OUTER}"}, OUTER, "http"),
        ({"for": f"{CLIENT}, unknown"}, PROXY, "http"),
        ({"for": "<script>", "proto": "javascript"}, PROXY, "http"),
        ({"proto": "https"}, PROXY, "https"),
        ({}, PROXY, "http"),
    ],
)
async def test_a_proxy_tells_who_asks_and_by_which_scheme(
    sent: dict[str, str], client: str, scheme: str
) -> None:
    site = Site()
    headers = [(f"x-forwarded-{name}".encode(), value.encode()) for name, value in sent.items()]
    await ask(Forwarded(site, ["10.0.0.0/8"]), headers)
    assert site.scope is not None
    assert (site.scope["client"][0], site.scope["scheme"]) == (client, scheme)


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::2", "/run/socket", ""])
async def test_nobody_else_is_believed(peer: str) -> None:
    site = Site()
    headers = [(b"x-forwarded-for", CLIENT.encode()), (b"x-forwarded-proto", b"https")]
    await ask(Forwarded(site, ["10.0.0.0/8", "::1"]), headers, client=(peer, 1))
    assert site.scope is not None
    assert (site.scope["client"][0], site.scope["scheme"]) == (peer, "http")


async def test_a_proxy_may_have_an_address_of_ipv6_or_be_whoever_asks() -> None:
    site = Site()
    for proxies, peer in ((["::1"], "::1"), (["10.0.0.2"], "::ffff:10.0.0.2"), (["*"], "/run/socket")):
        await ask(Forwarded(site, proxies), [(b"x-forwarded-proto", b"https")], client=(peer, 1))
        assert site.scope is not None
        assert site.scope["scheme"] == "https"
    await ask(Forwarded(site, ["*"]), [(b"x-forwarded-proto", b"https")], client=None)
    await ask(Forwarded(site, ["*"]), [(b"x-forwarded-proto", b"https")], type="websocket")
    assert site.scope is not None
    assert site.scope["scheme"] == "wss"


# Bodies


class Trickle:
    """Sends a part of a body at a time, each after so many seconds, and then nothing."""

    def __init__(self, *parts: tuple[float, bytes]) -> None:
        self.parts = list(parts)

    async def __call__(self) -> Message:
        pause_s, part = self.parts.pop(0) if self.parts else (60.0, b"")
        await asyncio.sleep(pause_s)
        return {"type": "http.request", "body": part, "more_body": True}


class Reading:
    """Reads a body, and says how that ended."""

    ended: object = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self.ended = await read_body(scope, receive, 1_000_000)
        except BaseException as error:
            self.ended = error
            await send({"type": "http.response.start", "status": 400, "headers": []})
            raise


async def test_a_body_that_stops_is_answered_with_408_and_the_application_finds_its_client_gone() -> None:
    site = Reading()
    start, body = await ask(BodyTimeout(site, 0.05), receive=Trickle((0, b"x")))
    assert (start["status"], json.loads(body["body"])["title"]) == (408, "Request Timeout")
    assert dict(start["headers"])[b"connection"] == b"close"
    assert dict(start["headers"])[b"content-type"] == b"application/problem+json"
    assert isinstance(site.ended, ClientDisconnected)


async def test_a_body_that_trickles_too_slowly_is_answered_with_408_and_a_slow_one_is_waited_for() -> None:
    parts = [(0.02, b"x" * 10)] * 20  # 500 bytes a second
    assert (await ask(BodyTimeout(Reading(), 0.1, 1_000), receive=Trickle(*parts)))[0]["status"] == 408
    site = Reading()
    whole = Trickle(*parts)

    async def receive() -> Message:
        return {**await whole(), "more_body": bool(whole.parts)}

    await ask(BodyTimeout(site, 0.3, 100), receive=receive)
    assert site.ended == b"x" * 200


async def test_the_time_that_an_application_takes_itself_does_not_count() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await asyncio.sleep(0.1)
        await receive()
        await send({"type": "http.response.start", "status": 204, "headers": []})

    parts = Trickle((0, b"x"), (0, b"y"))
    assert [m["status"] for m in await ask(BodyTimeout(slow, 0.05), receive=parts)] == [204]


async def test_what_is_answered_already_is_not_answered_again() -> None:
    async def early(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": []})
        assert (await receive())["type"] == "http.disconnect"

    assert [m["status"] for m in await ask(BodyTimeout(early, 0.01), receive=Trickle())] == [202]


async def test_an_error_of_the_application_itself_is_raised() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        raise LookupError

    with pytest.raises(LookupError):
        await ask(BodyTimeout(broken))


async def test_waiting_for_a_client_to_go_is_not_limited() -> None:
    parts: list[Message] = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Message:
        if parts:
            return parts.pop()
        await asyncio.sleep(0.1)
        return {"type": "http.disconnect"}

    async def listening(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 204, "headers": []})

    assert (await ask(BodyTimeout(listening, 0.02), receive=receive))[0]["status"] == 204
    assert (await ask(BodyTimeout(Site(), 0.02), method="GET"))[0]["status"] == 204

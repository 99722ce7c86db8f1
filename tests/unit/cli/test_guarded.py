"""What the guards of ``diptych run`` note of the requests."""

from __future__ import annotations

import asyncio

import pytest

from diptych.cli.serving.guarded import Guarded
from diptych.cli.serving.under_way import UnderWay
from diptych.config.service import ConfigService
from diptych.http.asgi import Message, Receive, Scope, Send

SCOPE: Scope = {
    "type": "http",
    "method": "POST",
    "path": "/",
    "headers": [(b"host", b"localhost")],
    "client": ("192.0.2.1", "50000"),
}


async def test_a_body_that_is_awaited_beyond_its_request_does_not_bring_the_request_back() -> None:
    """Its client would have counted as one with a request under way for good, and never as silent."""
    under_way = UnderWay({}, {})
    left: list[asyncio.Task[Message]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        left.append(asyncio.create_task(receive()))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        assert list(under_way.clients.values()) == [SCOPE["client"]]

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError(message)

    await Guarded(app, ConfigService().settings, "127.0.0.1", under_way)(SCOPE, receive, send)
    left[0].cancel()
    with pytest.raises(asyncio.CancelledError):
        await left[0]
    assert under_way == ({}, {})

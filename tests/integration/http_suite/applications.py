"""The same endpoints as applications of each kind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
from fastapi import FastAPI
from litestar import Litestar
from starlette.applications import Starlette

import diptych.ext.fastapi
import diptych.ext.litestar
import diptych.ext.starlette
from diptych import Diptych
from diptych.http import endpoints_app, hot_routes
from diptych.http.asgi import ASGIApp
from tests.integration.http_suite.site import ENDPOINTS


def plain(diptych: Diptych) -> ASGIApp:
    return endpoints_app(diptych, ENDPOINTS)


def fastapi(shelf: Diptych) -> ASGIApp:
    app = FastAPI(redirect_slashes=False)  # by default it redirects /books/ to /books
    diptych.ext.fastapi.install(app, shelf, ENDPOINTS)
    return app


def hot_fastapi(shelf: Diptych) -> ASGIApp:
    app = FastAPI(redirect_slashes=False)  # by default it redirects /books/ to /books
    diptych.ext.fastapi.install(app, shelf, ENDPOINTS, hot=hot_routes(ENDPOINTS))
    return app


def starlette(shelf: Diptych) -> ASGIApp:
    app = Starlette(routes=diptych.ext.starlette.routes(ENDPOINTS))
    app.router.redirect_slashes = False
    app.router.redirect_slashes = False
    diptych.ext.starlette.install(app, shelf)
    return app


def litestar(shelf: Diptych) -> ASGIApp:
    plugin = diptych.ext.litestar.DiptychPlugin(shelf)
    site = Litestar(diptych.ext.litestar.routes(ENDPOINTS), plugins=[plugin], openapi_config=None)
    return diptych.ext.litestar.asgi_app(site)


APPLICATIONS: Mapping[str, Callable[[Diptych], ASGIApp]] = {
    "asgi": plain,
    "fastapi": fastapi,
    "fastapi-hot": hot_fastapi,
    "starlette": starlette,
    "litestar": litestar,
}


@asynccontextmanager
async def running(app: ASGIApp) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application, which is started and stopped as a server does."""
    received: list[Any] = [{"type": "lifespan.shutdown"}, {"type": "lifespan.startup"}]
    sent: list[Any] = []
    stop, started = asyncio.Event(), asyncio.Event()

    async def receive() -> Any:
        if len(received) == 1:
            await stop.wait()
        return received.pop()

    async def send(message: Any) -> None:
        sent.append(message["type"])
        started.set()

    lifespan = asyncio.ensure_future(
        app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
    )
    waiting = asyncio.create_task(started.wait())
    await asyncio.wait([lifespan, waiting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if lifespan.done():
        await lifespan
    assert sent == ["lifespan.startup.complete"], sent
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://books.example") as client:
            yield client
    finally:
        stop.set()
        await lifespan
    assert sent[1:] == ["lifespan.shutdown.complete"]

"""Questions of tests to an application, beside its messages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from diptych.app import Diptych
from diptych.errors import MissingExtraError
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send
from diptych.read.answers import Document, Page

if TYPE_CHECKING:
    import httpx


class HasHeaders(Protocol):
    """A response of httpx, or of a test client made like httpx."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, found in lower case."""


async def settled(app: Diptych, *, timeout_s: float = 20) -> None:
    """Returns when Redis answers for every read model, and all changes committed before the call are visible.

    Without Redis SQL answers at once. Raises ``TimeoutError``, which says what keeps Redis from answering.

    >>> import asyncio
    >>> from diptych import ConfigService, Diptych
    >>> from diptych.testing import settled
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> async def main():
    ...     async with Diptych(ConfigService(database_url="shop.db"), models=Base, handlers=[]) as app:
    ...         await settled(app)
    >>> asyncio.run(main())
    """
    deadline = time.monotonic() + timeout_s
    while waiting := await _answered_by_sql(app):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Redis does not answer after {timeout_s:g} s: {'; '.join(waiting)}")
        await asyncio.sleep(0.01)
    await app.catch_up()


async def _answered_by_sql(app: Diptych) -> list[str]:
    health = await app.health(details=True)
    if health.redis.state == "off":
        return []
    if health.redis.state != "up":
        return [f"Redis is {health.redis.state} ({health.redis.detail})"]
    return [
        f"{name} is answered by SQL ({state.detail})"
        for name, state in health.read_models.items()
        if state.served_by != "redis"
    ]


def store_of(answer: Document[Any] | Page[Any] | HasHeaders) -> str:
    """Returns the store of an answer, "redis" or "sql": of a document, a page, or a response over HTTP.

    Raises ``ValueError`` for a response without the ``Cache-Status`` of diptych.

    >>> from diptych import Served, Document
    >>> from diptych.testing import store_of
    >>> store_of(Document(b"{}", Served("sql", "no-redis"), dict))
    'sql'
    """
    if isinstance(answer, Document | Page):
        return answer.served.store
    status = answer.headers.get("cache-status", "")
    if not status.startswith("diptych; "):
        raise ValueError(f"the response is not one of a read model: its Cache-Status is {status!r}")
    return "redis" if status == "diptych; hit" else "sql"


@asynccontextmanager
async def serving(site: ASGIApp, base_url: str = "http://testserver") -> AsyncIterator[httpx.AsyncClient]:
    """Starts an ASGI application by its lifespan, in the loop of the test, and gives its ``httpx.AsyncClient``.

    An error of the start is raised as it is.

    >>> import asyncio
    >>> from diptych.testing import serving
    >>> from litestar import Litestar, get
    >>> @get("/hello")
    ... async def hello() -> str:
    ...     return "hello"
    >>> async def main():
    ...     async with serving(Litestar([hello], openapi_config=None)) as client:
    ...         print((await client.get("/hello")).text)
    >>> asyncio.run(main())
    hello
    """
    try:
        import httpx
    except ModuleNotFoundError as error:
        raise MissingExtraError("diptych.testing.serving", "testing", "httpx") from error

    async with _lifespan(site) as state:

        async def started(scope: Scope, receive: Receive, send: Send) -> None:
            await site({**scope, "state": dict(state)}, receive, send)

        transport = httpx.ASGITransport(started)
        async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
            yield client


@asynccontextmanager
async def _lifespan(site: ASGIApp) -> AsyncIterator[Mapping[str, Any]]:
    state: dict[str, Any] = {}
    scope: Scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
    told: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()

    async def run() -> None:  # in one task: what a lifespan opens may have to be closed by the same
        try:
            await site(scope, told.get, said.put)
        finally:
            said.put_nowait({"type": "the end of its lifespan"})

    async def tell(phase: str) -> None:
        await told.put({"type": f"lifespan.{phase}"})
        answer = await said.get()
        if answer["type"] != f"lifespan.{phase}.complete":
            await task  # raises the error of the application, if it did not just tell of one
            raise RuntimeError(f"the {phase} failed: {answer.get('message') or answer['type']}")

    task = asyncio.create_task(run())
    try:
        await tell("startup")
        try:
            yield state
        finally:
            await tell("shutdown")
            await task
    finally:
        task.cancel()

"""Dependencies of FastAPI: what a `Diptych` has, and a session in a transaction of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Literal

from fastapi import Depends
from starlette.requests import HTTPConnection

from diptych.errors import ConfigurationError
from diptych.ext.starlette.hot import GIVEN
from diptych.ext.starlette.install import diptych_of


def provide(kind: type) -> Any:
    """Returns the dependency on what a handler would get for this type: a read model, a service, the `Diptych`.

    >>> from typing import Annotated
    >>> import httpx
    >>> from diptych import Diptych
    >>> from diptych.ext.fastapi import install, provide
    >>> from fastapi import FastAPI
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> Shop = Annotated[Diptych, provide(Diptych)]
    >>> app = FastAPI()
    >>> install(app, Diptych(models=Base, handlers=[]))
    >>> @app.get("/state")
    ... async def state(shop: Shop) -> str:
    ...     return (await shop.health()).status
    >>> async def main():
    ...     async with app.router.lifespan_context(app):
    ...         transport = httpx.ASGITransport(app)
    ...         async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
    ...             print((await client.get("/state")).json())
    >>> import asyncio
    >>> asyncio.run(main())
    ok
    """

    async def provided(connection: HTTPConnection) -> Any:
        return diptych_of(connection).provide(kind)

    return _given(provided)


def session(commit: Literal["refuse", "flush"] = "refuse") -> Any:
    """Returns the dependency on SQLAlchemy's `AsyncSession` in a transaction of the request's own, like a command.

    What it changes is committed, and visible to queries, before the answer is sent; an exception of the route undoes
    all. Commands that the route executes join the transaction. `commit()` of the session raises `UnitOfWorkError`, or
    flushes with ``commit="flush"`` (see `ORMService.session`). If a concurrent transaction won, the answer is 503.

    >>> from typing import Annotated
    >>> from diptych.ext.fastapi import session
    >>> from sqlalchemy.ext.asyncio import AsyncSession
    >>> Session = Annotated[AsyncSession, session()]
    """

    async def opened(connection: HTTPConnection) -> AsyncIterator[Any]:
        async with diptych_of(connection).orm.session(commit=commit) as given:
            yield given

    try:
        # ★ By default FastAPI would end it after the answer, which then acknowledges what is not committed.
        return _given(opened, scope="function")
    except TypeError as error:
        raise ConfigurationError("diptych.ext.fastapi", "session() needs FastAPI 0.121 or later") from error


def _given(call: Any, **options: Any) -> Any:
    setattr(call, GIVEN, True)
    return Depends(call, **options)

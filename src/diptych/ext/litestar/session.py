"""A session in a transaction of the request's own, for handlers of Litestar."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from litestar import Request
from litestar.di import Provide

from diptych.app import Diptych
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send

SESSION = "diptych.session"
"""Scope key: the session of the request."""


async def _session_of(request: Request[Any, Any, Any]) -> Any:
    return request.scope[SESSION]  # type: ignore[literal-required]


OPENED = Provide(_session_of)
"""The dependency on the session."""


@lru_cache(maxsize=4096)
def needs_session(handler: Any) -> bool:
    """Returns whether a handler, or a dependency of it, asks for the session."""
    provided: Mapping[str, Provide] = handler.resolve_dependencies()
    names, seen = [*handler.parsed_fn_signature.parameters], set[str]()
    while names:
        name = names.pop()
        if name in seen or name not in provided:
            continue
        seen.add(name)
        if provided[name] is OPENED:
            return True
        names += provided[name].parsed_fn_signature.parameters
    return False


async def in_session(diptych: Diptych, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers a request in a transaction, and sends the answer once that is committed and visible to queries.

    An answer with an error undoes the transaction: Litestar has made it of the exception. Dependencies may be made in
    tasks of their own, which the transaction would not be known in.
    """
    held: list[Message] = []

    async def hold(message: Message) -> None:
        held.append(message)

    try:
        async with diptych.orm.session() as session:
            scope[SESSION] = session
            await app(scope, receive, hold)
            if held and held[0].get("status", 200) >= 400:
                raise _Undone
    except _Undone:
        pass
    for message in held:
        await send(message)


class _Undone(Exception):
    """Ends a transaction whose request was answered with an error."""

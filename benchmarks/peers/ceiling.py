"""The ceiling: raw ASGI that answers from memory. Nothing behind this server can be faster."""

from __future__ import annotations

from benchmarks.books import SEEDED, document, title
from benchmarks.peers.asgi import Receive, Scope, Send, nothing, run_lifespan

DOCUMENTS = {title(number): document(number) for number in range(SEEDED)}


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await run_lifespan(receive, send, nothing, nothing)
        return
    body = DOCUMENTS[scope["path"][len("/books/") :]]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})

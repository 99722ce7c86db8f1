"""Stored bytes as the answers of frameworks' routes: in place of the JSON that the framework has made of them."""

from __future__ import annotations

from typing import Any

import msgspec

from diptych.http.answers import Answer, answer_found, answer_query, send_answer
from diptych.http.asgi import Message, Scope, Send
from diptych.read.answers import Document

RETURNED = "diptych.returned"
"""Scope key: the `Returned` of the request, where stored bytes can be sent as they are. Otherwise absent."""

_OF_BODY = frozenset({b"content-type", b"content-length"})


class Returned:
    """The document or the page that a route has returned, whose JSON the framework has made; None for neither."""

    value: Any = None


def answering(scope: Scope, returned: Returned, send: Send) -> Send:
    """Returns a `send` that answers as for a query, where a document or a page is all of a response."""
    begun: list[Message] = []
    chunks: list[bytes] = []

    async def send_answering(message: Message) -> None:
        if message["type"] == "http.response.start" and returned.value is not None:
            begun.append(message)
        elif begun and message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                await send_answer(send, _answer(scope, begun.pop(), b"".join(chunks), returned.value))
        else:
            await send(message)

    return send_answering


def _answer(scope: Scope, start: Message, body: bytes, found: Any) -> Answer:
    """Returns the answer of a route that has returned this document or page, with its headers."""
    status = start["status"]
    if not _is_json_of(found, start, body):
        return Answer(status, list(start.get("headers", ())), body)
    if (scope["method"] in ("GET", "HEAD") and status == 200) or (isinstance(found, Document) and not found):
        answer = answer_query(scope, found)
    else:
        answer = answer_found(scope, found, [], is_conditional=False)
        answer = Answer(status, answer.headers, answer.body)
    added = [pair for pair in start.get("headers", ()) if pair[0].lower() not in _OF_BODY]
    own = {name for name, _ in added}
    headers = [*added, *(pair for pair in answer.headers if pair[0] not in own)]
    return Answer(answer.status, headers, answer.body)


def _is_json_of(found: Any, start: Message, body: bytes) -> bool:
    """Returns whether a response is the JSON of a document or a page, and not what something else made of that."""
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    if b"json" not in headers.get(b"content-type", b"") or b"content-encoding" in headers:
        return False
    stored: bytes = found.body or b"null"
    try:
        return body == stored or bool(msgspec.json.decode(body) == msgspec.json.decode(stored))
    except ValueError:
        return False

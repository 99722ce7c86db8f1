"""Stored bytes in the answers of frameworks: in the JSON that a framework makes a text stands for each, until it is
sent."""

from __future__ import annotations

from typing import Any

import msgspec

from diptych.http.answers import Answer, answer_found, answer_query, send_answer
from diptych.http.asgi import Message, Scope, Send
from diptych.read.answers import Document
from diptych.schemas import Answers

_OF_BODY = frozenset({b"content-type", b"content-length"})


def answering(scope: Scope, answers: Answers, send: Send) -> Send:
    """Returns a `send` that puts stored bytes in place of the texts that stand for them in a response."""
    begun: list[Message] = []
    chunks: list[bytes] = []

    async def send_answering(message: Message) -> None:
        if message["type"] == "http.response.start" and (answers.by_text or answers.whole is not None):
            begun.append(message)
        elif begun and message["type"] == "http.response.body":
            chunks.append(message.get("body", b""))
            if not message.get("more_body", False):
                await send_answer(send, _answer(scope, begun.pop(), b"".join(chunks), answers))
        else:
            if answers.by_text and message.get("body"):  # of a stream, which tells no length beforehand
                message = {**message, "body": answers.put_back(message["body"])}
            await send(message)

    return send_answering


def _answer(scope: Scope, start: Message, body: bytes, answers: Answers) -> Answer:
    """Returns the answer of a route: that of a query, if a document or a page is all of it."""
    status, found = start["status"], answers.by_text.get(body)
    if found is None and answers.whole is not None and _is_json_of(answers.whole, start, body):
        found = answers.whole
    if found is None:
        whole = answers.put_back(body)
        kept = [pair for pair in start.get("headers", ()) if pair[0].lower() != b"content-length"]
        return Answer(status, [*kept, (b"content-length", b"%d" % len(whole))], whole)
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

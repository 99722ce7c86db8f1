"""What the bus costs over a bare dict look-up and ``await``, with many messages registered.

One query of one of 200 registered types is sent again and again to a handler that returns one of its fields. The
bare candidate is ``await handlers[type(message)](message)``; the limit is 2 µs above it. ``Diptych.ask`` is that
of a started application on SQLite without Redis.
"""

# No `from __future__ import annotations` here: the handlers' annotations name classes that are local.

import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy.orm import DeclarativeBase

from benchmarks.runner import Candidate, Case, Sample
from diptych import ConfigService, Diptych, Query
from diptych.bus import Bus

REGISTERED = 200

Send = Callable[[Query[int]], Awaitable[int]]


class Base(DeclarativeBase):
    """No tables: the queries here touch no store."""


async def cases(quick: bool) -> AsyncGenerator[Case, None]:
    """One case: the two ways to the same handler."""
    messages, handler_classes = _messages_and_handlers(REGISTERED)
    message = messages[REGISTERED // 2](number=7)
    bus = Bus(handler_classes, {})
    handlers: dict[type, Callable[[Any], Awaitable[Any]]] = {kind: bus.handler_of(kind) for kind in messages}
    calls = 2_000 if quick else 20_000
    with tempfile.TemporaryDirectory() as folder:
        config = ConfigService(environ={}, database_url=str(Path(folder) / "dispatch.db"), redis_url=None)
        async with Diptych(config, models=Base, handlers=handler_classes) as app:
            candidates = {
                "bare look-up and await": _bare(handlers, message, calls),
                "Diptych.ask": _repeated(app.ask, message, calls),
            }
            yield Case("One message, one handler", 15 if quick else 201, candidates)


def _messages_and_handlers(count: int) -> tuple[list[type[Any]], list[type]]:
    pairs = [_message_and_handler() for _ in range(count)]
    return [message for message, _ in pairs], [handler for _, handler in pairs]


def _message_and_handler() -> tuple[type[Any], type]:
    class Number(Query[int], frozen=True):
        number: int

    class NumberHandler:
        async def answer(self, query: Number) -> int:
            return query.number

    return Number, NumberHandler


def _bare(
    handlers: dict[type, Callable[[Any], Awaitable[Any]]], message: Query[int], calls: int
) -> Candidate:
    async def measure() -> Sample:
        begin = time.perf_counter_ns()
        for _ in range(calls):
            await handlers[type(message)](message)
        return _per_call(begin, calls)

    return measure


def _repeated(send: Send, message: Query[int], calls: int) -> Candidate:
    async def measure() -> Sample:
        begin = time.perf_counter_ns()
        for _ in range(calls):
            await send(message)
        return _per_call(begin, calls)

    return measure


def _per_call(begin_ns: int, calls: int) -> Sample:
    return {"µs per call": (time.perf_counter_ns() - begin_ns) / calls / 1000}

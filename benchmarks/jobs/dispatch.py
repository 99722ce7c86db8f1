"""One query of one of many registered types is sent again and again to a handler that returns one of its fields."""

# No `from __future__ import annotations` here: the handlers' annotations name classes that are local.

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import DeclarativeBase

from benchmarks.jobs.orders import take_orders
from benchmarks.runner import Sample
from diptych import ConfigService, Diptych, Query

REGISTERED = 200

Send = Callable[[Query[int]], Awaitable[int]]
Repeat = Callable[[int], Awaitable[Sample]]
"""Sends a message so many times."""


class Base(DeclarativeBase):
    """No tables: the queries here touch no store."""


@contextlib.asynccontextmanager
async def dispatching() -> AsyncIterator[tuple[Repeat, Repeat]]:
    """The two ways to the same handler: a bare look-up, and a started application."""
    messages, handler_classes = _messages_and_handlers(REGISTERED)
    message = messages[REGISTERED // 2](number=7)
    handlers: dict[type, Send] = {
        kind: handler().answer for kind, handler in zip(messages, handler_classes, strict=True)
    }
    with tempfile.TemporaryDirectory() as folder:
        config = ConfigService(environ={}, database_url=str(Path(folder) / "dispatch.db"), redis_url=None)
        async with Diptych(config, models=Base, handlers=handler_classes) as app:
            yield partial(_bare, handlers, message), partial(_repeated, app.ask, message)


def _messages_and_handlers(count: int) -> tuple[list[type[Any]], list[type[Any]]]:
    pairs = [_message_and_handler() for _ in range(count)]
    return [message for message, _ in pairs], [handler for _, handler in pairs]


def _message_and_handler() -> tuple[type[Any], type]:
    class Number(Query[int], frozen=True):
        number: int

    class NumberHandler:
        async def answer(self, query: Number) -> int:
            return query.number

    return Number, NumberHandler


async def _bare(handlers: dict[type, Send], message: Query[int], calls: int) -> Sample:
    begin = time.perf_counter_ns()
    for _ in range(calls):
        await handlers[type(message)](message)
    return _per_call(begin, calls)


async def _repeated(send: Send, message: Query[int], calls: int) -> Sample:
    begin = time.perf_counter_ns()
    for _ in range(calls):
        await send(message)
    return _per_call(begin, calls)


def _per_call(begin_ns: int, calls: int) -> Sample:
    return {"µs per call": (time.perf_counter_ns() - begin_ns) / calls / 1000}


async def main() -> None:
    """Does it when it is told to."""
    async with dispatching() as (_, asked):
        await take_orders({"ask": asked})


if __name__ == "__main__":
    asyncio.run(main())

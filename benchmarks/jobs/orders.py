"""The worker's end: it says what it is made of, and then does what it is told, one order after the other."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

import demo_app.messages
import diptych


class Order(msgspec.Struct, frozen=True):
    """What is to be done, by its name, and with which arguments."""

    name: str
    arguments: dict[str, Any]


async def take_orders(acts: Mapping[str, Callable[..., Awaitable[Any]]]) -> None:
    """Reads an order a line from standard input, until that is closed, and writes a line when it is carried out."""
    _spare_the_collector()
    _tell([diptych.__file__, demo_app.messages.__file__])
    while line := await asyncio.to_thread(sys.stdin.buffer.readline):
        order = msgspec.json.decode(line, type=Order)
        _tell(await acts[order.name](**order.arguments))


def _spare_the_collector() -> None:
    # As `diptych run` does for its workers: else each full collection stops the event loop for some 50 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, *gc.get_threshold()[1:])


def _tell(answer: object) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(answer) + b"\n")
    sys.stdout.buffer.flush()

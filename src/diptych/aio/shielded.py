"""Work protected from the cancellation of its caller."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Awaits ``work`` to its end and returns its result, even if the caller is cancelled meanwhile.

    Raises the cancellation afterwards; a result or an error of ``work`` is then dropped.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # the caller has gone: asyncio need not report that the error was never retrieved
        raise

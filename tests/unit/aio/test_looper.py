"""The contract of start and stop for background work."""

from __future__ import annotations

import asyncio
import contextlib

from diptych.aio.tasks import Looper


async def test_it_runs_the_step_at_once_and_again_when_woken():
    ran: asyncio.Queue[None] = asyncio.Queue()

    async def step() -> None:
        ran.put_nowait(None)

    looper = Looper("test", step, interval_s=3600)
    looper.start()
    await ran.get()
    looper.wake()
    await ran.get()
    await looper.stop()


async def test_a_wake_during_the_step_is_not_lost():
    ran: asyncio.Queue[None] = asyncio.Queue()
    again = asyncio.Event()

    async def step() -> None:
        ran.put_nowait(None)
        if ran.qsize() == 1:
            looper.wake()
        else:
            again.set()

    looper = Looper("test", step, interval_s=3600)
    looper.start()
    await again.wait()
    await looper.stop()


async def test_a_step_that_raises_is_logged_and_tried_again(caplog):
    ran: asyncio.Queue[None] = asyncio.Queue()
    again = asyncio.Event()

    async def step() -> None:
        ran.put_nowait(None)
        if ran.qsize() == 1:
            raise RuntimeError("broken step")
        again.set()

    looper = Looper("test", step, interval_s=0.001)
    looper.start()
    await again.wait()
    await looper.stop()
    assert "broken step" in caplog.text


async def test_stop_is_safe_before_start_and_twice_and_ends_the_step():
    ended = asyncio.Event()

    async def step() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    looper = Looper("test", step, interval_s=3600)
    await looper.stop()
    looper.start()
    await asyncio.sleep(0)
    await looper.stop()
    assert ended.is_set()
    await looper.stop()


async def test_stop_ends_a_step_that_swallows_a_cancellation():
    """Some libraries swallow a cancellation; `stop` must not wait for ever then."""
    swallowed = asyncio.Event()

    async def step() -> None:
        if not swallowed.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            swallowed.set()

    looper = Looper("test", step, interval_s=0.001)
    looper.start()
    await asyncio.sleep(0)
    stopped, _ = await asyncio.wait([asyncio.create_task(looper.stop())], timeout=10)
    assert stopped
    assert swallowed.is_set()
    assert "diptych test" not in {task.get_name() for task in asyncio.all_tasks()}  # it does not go on either

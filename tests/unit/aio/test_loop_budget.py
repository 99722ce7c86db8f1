"""The budget of work in the event loop: so much in a turn, and the rest in later turns."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from diptych.aio.event_loop import LoopBudget


class Loop:
    """Counts the turns of the event loop."""

    def __init__(self) -> None:
        self.turn = 0
        self._next: asyncio.Handle | None = None

    @asynccontextmanager
    async def counted(self) -> AsyncIterator[None]:
        self._count()
        yield
        assert self._next is not None
        self._next.cancel()

    def _count(self) -> None:
        self.turn += 1
        self._next = asyncio.get_running_loop().call_soon(self._count)


async def test_a_turn_with_time_left_takes_everything():
    loop, budget = Loop(), LoopBudget(share_s=3600)
    async with loop.counted():
        before = loop.turn
        for _ in range(1000):
            await budget.wait()
        assert loop.turn == before


async def test_who_finds_no_time_left_comes_in_a_later_turn_in_the_order_of_asking():
    loop, budget = Loop(), LoopBudget(share_s=0)
    came: list[tuple[int, str]] = []

    async def work(name: str) -> None:
        await budget.wait()
        came.append((loop.turn, name))

    async with loop.counted():
        await asyncio.gather(*(work(name) for name in "abcde"))
    assert [name for _, name in came] == list("abcde")
    assert len({turn for turn, _ in came}) == 5


async def test_others_have_their_turn_between_work_that_never_waits():
    budget, others = LoopBudget(share_s=0), 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(10):
        await budget.wait()
    assert others >= 9
    task.cancel()


def test_it_goes_on_in_another_loop():
    """The first one ended in the midst of a turn."""
    budget = LoopBudget(share_s=0)
    loop = asyncio.new_event_loop()

    async def begin() -> None:
        await budget.wait()
        loop.stop()

    task = loop.create_task(begin())
    loop.run_forever()
    assert task.done()
    loop.close()
    asyncio.run(budget.wait())

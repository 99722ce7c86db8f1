"""Turns: one at a time, in order, those first who must not wait, and no turn lost to a cancellation."""

from __future__ import annotations

import asyncio
import random

import pytest

from diptych.aio.priority_lock import PriorityLock


class Queue:
    """Tasks that take a turn, and end it when told."""

    def __init__(self, timeout_s: float = 10) -> None:
        self.turns = PriorityLock(timeout_s)
        self.came: list[str] = []
        self.inside = 0
        self._leave: dict[str, asyncio.Event] = {}

    async def join(self, name: str, *, first: bool = False) -> asyncio.Task[None]:
        """Returns once the task waits, or has its turn."""
        self._leave[name] = asyncio.Event()
        task = asyncio.create_task(self._take(name, first))
        await settled()
        return task

    async def leave(self, name: str) -> None:
        self._leave[name].set()
        await settled()

    async def _take(self, name: str, first: bool) -> None:
        async with self.turns.take(first):
            self.inside += 1
            assert self.inside == 1
            self.came.append(name)
            try:
                await self._leave[name].wait()
            finally:
                self.inside -= 1


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_they_come_one_at_a_time_in_the_order_of_asking():
    queue = Queue()
    for name in "abc":
        await queue.join(name)
    assert queue.came == ["a"]
    await queue.leave("a")
    await queue.leave("b")
    await queue.leave("c")
    assert queue.came == ["a", "b", "c"]
    await queue.join("d")
    assert queue.came[-1] == "d"
    await queue.leave("d")


async def test_those_who_ask_to_be_first_go_before_all_that_wait():
    queue = Queue()
    await queue.join("inside")
    await queue.join("other 1")
    await queue.join("first 1", first=True)
    await queue.join("other 2")
    await queue.join("first 2", first=True)
    for name in ("inside", "first 1", "first 2", "other 1", "other 2"):
        await queue.leave(name)
    assert queue.came == ["inside", "first 1", "first 2", "other 1", "other 2"]


async def test_a_turn_ends_with_an_error_too():
    turns = PriorityLock(10)
    with pytest.raises(RuntimeError, match="on purpose"):
        async with turns.take():
            raise RuntimeError("on purpose")
    async with asyncio.timeout(1), turns.take():
        pass


async def test_a_turn_that_does_not_come_in_time_is_given_up():
    queue = Queue(timeout_s=0.05)
    await queue.join("a")
    for first in (False, True):
        with pytest.raises(TimeoutError):
            async with queue.turns.take(first):
                pass
    await queue.leave("a")
    await queue.join("b")
    assert queue.came == ["a", "b"]
    await queue.leave("b")


@pytest.mark.parametrize("first", [True, False])
async def test_one_who_is_cancelled_while_waiting_is_passed_over(first: bool):
    queue = Queue()
    await queue.join("a")
    waiting = await queue.join("b", first=first)
    await queue.join("c")
    waiting.cancel()
    await settled()
    await queue.leave("a")
    assert queue.came == ["a", "c"]
    await queue.leave("c")


@pytest.mark.parametrize("first", [True, False])
async def test_one_who_is_cancelled_in_the_moment_of_the_turn_hands_it_on(first: bool):
    """The turn was given, and its taker had no time yet to notice."""
    queue = Queue()
    inside = await queue.join("a")
    waiting = await queue.join("b", first=first)
    await queue.join("c")
    inside.cancel()
    await asyncio.sleep(0)  # "a" leaves: the turn is given to "b"
    waiting.cancel()
    await settled()
    assert queue.came == ["a", "c"]
    await queue.leave("c")
    await queue.join("d")
    assert queue.came == ["a", "c", "d"]
    await queue.leave("d")


@pytest.mark.parametrize("first", [True, False])
async def test_one_who_is_cancelled_before_the_turn_of_the_same_moment_does_not_get_it(first: bool):
    queue = Queue()
    inside = await queue.join("a")
    waiting = await queue.join("b", first=first)
    await queue.join("c")
    waiting.cancel()
    inside.cancel()
    await settled()
    assert queue.came == ["a", "c"]
    await queue.leave("c")


async def test_the_last_one_cancelled_in_the_moment_of_the_turn_leaves_it_free():
    queue = Queue()
    inside = await queue.join("a")
    waiting = await queue.join("b")
    inside.cancel()
    await asyncio.sleep(0)
    waiting.cancel()
    await settled()
    await queue.join("c")
    assert queue.came == ["a", "c"]
    await queue.leave("c")


@pytest.mark.parametrize("seed", range(20))
async def test_no_turn_is_lost_or_shared_whatever_is_cancelled_when(seed: int):
    chance = random.Random(seed)
    turns, inside, done = PriorityLock(0.02), 0, 0

    async def take() -> None:
        nonlocal inside, done
        async with turns.take(first=chance.random() < 0.3):
            inside += 1
            assert inside == 1
            try:
                for _ in range(chance.randrange(4)):
                    await asyncio.sleep(chance.choice([0, 0, 0, 0.002]))
            finally:
                inside -= 1
        done += 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(200):
        tasks.append(asyncio.create_task(take()))
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(0)
        if chance.random() < 0.6:
            chance.choice(tasks[-5:]).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [
        e for e in ended if e is not None and not isinstance(e, asyncio.CancelledError | TimeoutError)
    ]
    assert done
    async with asyncio.timeout(1), turns.take():
        pass

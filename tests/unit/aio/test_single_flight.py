"""Shared executions: equal calls in the queue are executed once, and nobody joins an execution that has begun."""

from __future__ import annotations

import asyncio
import random

import pytest

from diptych.aio.sharing import SingleFlight


class Store:
    """Answers a question when told, with what it held when the question came."""

    def __init__(self, turns: int = 1) -> None:
        self.turns = asyncio.Semaphore(turns)
        self.shared: SingleFlight[str] = SingleFlight(self.turns)
        self.version = 0
        self.sent: list[str] = []
        self._go_on = asyncio.Event()

    async def ask(self, question: str) -> asyncio.Task[str]:
        """Returns once the question waits, or has been sent."""
        task = asyncio.create_task(self.shared.run(question, lambda: self._execute(question)))
        await settled()
        return task

    async def answer(self) -> None:
        """Has everything answered that has been sent up to now."""
        self._go_on.set()
        self._go_on = asyncio.Event()
        await settled()

    async def _execute(self, question: str) -> str:
        self.sent.append(question)
        found = f"{question}{self.version}"
        await self._go_on.wait()
        if question.startswith("faulty"):
            raise ValueError(found)
        return found


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_equal_questions_that_wait_are_asked_once():
    store = Store()
    first = await store.ask("x")
    waiting = [await store.ask(question) for question in "ababa"]
    assert store.sent == ["x"]
    for _ in range(3):
        await store.answer()
    assert store.sent == ["x", "a", "b"]
    assert await first == "x0"
    assert [await task for task in waiting] == ["a0", "b0", "a0", "b0", "a0"]


async def test_nobody_joins_a_question_that_has_been_sent():
    """It holds what was there before, and who asks now may ask for more."""
    store = Store()
    first = await store.ask("a")
    store.version = 1
    second = await store.ask("a")
    await store.answer()  # the second is sent
    store.version = 2
    third = await store.ask("a")
    await store.answer()
    await store.answer()
    assert [await task for task in (first, second, third)] == ["a0", "a1", "a2"]


async def test_nobody_joins_a_question_that_was_sent_without_waiting():
    store = Store(turns=2)
    first = await store.ask("a")
    store.version = 1
    second = await store.ask("a")
    await store.answer()
    assert [await first, await second] == ["a0", "a1"]


async def test_no_more_run_than_there_are_turns():
    store = Store(turns=2)
    waiting = [await store.ask(question) for question in "abcde"]
    assert store.sent == ["a", "b"]
    await store.answer()
    assert store.sent == ["a", "b", "c", "d"]
    for _ in range(2):
        await store.answer()
    assert [await task for task in waiting] == ["a0", "b0", "c0", "d0", "e0"]


async def test_who_is_cancelled_leaves_the_others_their_answer():
    store = Store()
    await store.ask("x")
    waiting = [await store.ask("a") for _ in range(3)]
    waiting[0].cancel()
    await store.answer()  # "a" is sent
    waiting[1].cancel()
    await store.answer()
    assert await waiting[2] == "a0"
    assert store.sent == ["x", "a"]


async def test_what_nobody_waits_for_any_more_is_not_asked():
    store = Store()
    first = await store.ask("x")
    waiting = [await store.ask("a") for _ in range(2)]
    for task in waiting:
        task.cancel()
    await settled()
    await store.answer()
    assert await first == "x0"
    assert store.sent == ["x"]
    assert not store.turns.locked()


async def test_who_asks_while_the_last_one_leaves_is_answered():
    store = Store()
    await store.ask("x")
    leaving = await store.ask("a")
    leaving.cancel()
    # Comes after the one that leaves, and before the execution hears that it is cancelled.
    asking = asyncio.create_task(store.shared.run("a", lambda: store._execute("a")))
    await settled()
    await store.answer()
    await store.answer()
    assert await asking == "a0"


async def test_one_that_was_sent_and_is_left_by_all_gives_its_turn_back():
    store = Store()
    await store.ask("x")
    only = await store.ask("a")
    await store.answer()
    assert store.sent == ["x", "a"]
    only.cancel()
    await settled()
    assert not store.turns.locked()


async def test_an_error_reaches_all_and_the_next_question_is_asked_anew():
    store = Store()
    await store.ask("x")
    waiting = [await store.ask("faulty") for _ in range(3)]
    await store.answer()
    await store.answer()
    for task in waiting:
        with pytest.raises(ValueError, match="faulty0"):
            await task
    store.version = 1
    again = await store.ask("faulty")
    await store.answer()
    with pytest.raises(ValueError, match="faulty1"):
        await again


@pytest.mark.parametrize("seed", range(20))
async def test_no_answer_is_older_than_its_question_whatever_is_cancelled_when(seed: int):
    chance = random.Random(seed)
    turns, version, running, answered, executed = asyncio.Semaphore(2), 0, 0, 0, 0
    shared: SingleFlight[int] = SingleFlight(turns)

    async def execute() -> int:
        nonlocal running, executed
        running += 1
        assert running <= 2
        try:
            for _ in range(chance.randrange(3)):
                await asyncio.sleep(0)
            found = version
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            executed += 1
            return found
        finally:
            running -= 1

    async def ask() -> None:
        nonlocal answered
        known = version
        found = await shared.run(chance.choice("ab"), execute)
        assert found >= known
        answered += 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(ask()))
        version += chance.random() < 0.5
        for _ in range(chance.choice([0, 0, 0, 1, 2])):
            await asyncio.sleep(0)
        if chance.random() < 0.5:
            chance.choice(tasks[-5:]).cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [e for e in ended if e is not None and not isinstance(e, asyncio.CancelledError)]
    assert answered > executed > 0  # some were shared
    await settled()
    assert not turns.locked()
    async with asyncio.timeout(1), turns, turns:
        pass

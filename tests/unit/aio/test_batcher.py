"""Look-ups in batches: those of a turn go together, each gets its own value, and the number under way is bounded."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Sequence

import pytest

from diptych.aio.sharing import Batch, Batcher, SerialBatcher

MAX_KEYS = 64
MAX_BATCHES = 16


class Store:
    """Keeps batches until ``answer``, which gives each key its text as value."""

    def __init__(self) -> None:
        self.sent: list[Batch[int, str | None]] = []
        self.look_ups = Batcher(self.sent.append, max_keys=MAX_KEYS, max_batches=MAX_BATCHES)

    def ask(self, *numbers: int) -> list[asyncio.Future[str | None]]:
        return [self.look_ups.get(number) for number in numbers]

    def answer(self) -> None:
        """Ends all batches that have been sent up to now."""
        sent = list(self.sent)
        self.sent.clear()
        for batch in sent:
            batch.resolve([str(key) for key in batch.keys])


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_of_one_turn_go_together_and_each_is_given_its_own():
    store = Store()
    asked = store.ask(*range(10))
    await settled()
    assert [len(batch.keys) for batch in store.sent] == [10]
    store.answer()
    assert await asyncio.gather(*asked) == [str(number) for number in range(10)]


async def test_who_is_cancelled_is_not_asked_for_and_takes_nothing_from_others():
    store = Store()
    early, late, patient = store.ask(1, 2, 3)
    early.cancel()
    await settled()
    assert store.sent[0].keys == [2, 3]
    late.cancel()
    store.answer()
    assert await patient == "3"


async def test_what_nobody_waits_for_is_not_sent():
    store = Store()
    (hasty,) = store.ask(1)
    hasty.cancel()
    await settled()
    assert store.sent == []
    store.ask(2)
    await settled()
    assert store.sent[0].keys == [2]


async def test_what_is_under_way_is_bounded_and_the_rest_waits_for_its_turn():
    store = Store()
    most = MAX_KEYS * MAX_BATCHES
    asked = store.ask(*range(3 * most))
    await settled()
    assert [len(batch.keys) for batch in store.sent] == [MAX_KEYS] * MAX_BATCHES
    for future in asked[most : 2 * most]:
        future.cancel()
    asked += store.ask(-1)  # while others wait already
    while store.sent:
        store.answer()
        await settled()
    assert all(future.done() for future in asked)
    assert asked[-2].result() == str(3 * most - 1)
    assert asked[-1].result() == "-1"


async def test_what_can_not_be_told_at_once_is_waited_for():
    store = Store()
    (asked,) = store.ask(1)
    await settled()

    async def later() -> list[str | None]:
        await asyncio.sleep(0)
        return ["late"]

    store.sent[0].resolve_later(later())
    assert await asked == "late"


async def test_an_error_is_raised_for_all_and_leaves_room_for_others():
    store = Store()
    asked = store.ask(*range(MAX_KEYS * MAX_BATCHES + 1))
    await settled()

    async def failing() -> list[str | None]:
        raise OSError("away")

    for batch in list(store.sent):
        store.sent.remove(batch)
        batch.resolve_later(failing())
    await settled()
    store.answer()
    for future in asked[:-1]:
        with pytest.raises(OSError, match="away"):
            await future
    assert await asked[-1] == str(len(asked) - 1)


async def test_no_request_lends_its_context_to_the_others():
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    store = Store()
    whose.set("the first one's")
    (asked,) = store.ask(1)
    await settled()

    async def found() -> list[str | None]:
        return [whose.get()]

    store.sent[0].resolve_later(found())
    assert await asked == "nobody's"


class Worker:
    """Executes batches one after the other, each once ``going_on`` is set."""

    def __init__(self) -> None:
        self.executed: list[list[int]] = []
        self.pauses = 0
        self.going_on = asyncio.Event()
        self.calls: SerialBatcher[int, str] = SerialBatcher(
            self.execute, self.pause_s, cut_off=EOFError("over")
        )

    async def execute(self, keys: Sequence[int]) -> list[str]:
        self.executed.append(list(keys))
        await self.going_on.wait()
        if 0 in keys:
            raise OSError("away")
        return [str(key) for key in keys]

    def pause_s(self) -> float:
        self.pauses += 1
        return 0.0


async def test_who_comes_while_a_batch_is_executed_is_of_the_next_batch_and_not_of_this():
    worker = Worker()
    first = [worker.calls.get(1), worker.calls.get(2)]
    await settled()
    late = [worker.calls.get(3), worker.calls.get(4)]
    late[0].cancel()
    await settled()
    assert worker.executed == [[1, 2]]
    worker.going_on.set()
    assert await asyncio.gather(*first, late[1]) == ["1", "2", "4"]
    assert worker.executed == [[1, 2], [4]]
    assert worker.pauses == 1
    assert await worker.calls.get(5) == "5"
    assert worker.pauses == 1, "nobody had come meanwhile"


async def test_an_error_of_a_batch_is_raised_for_its_callers_alone():
    worker = Worker()
    failing = worker.calls.get(0)
    await settled()
    following = worker.calls.get(1)
    worker.going_on.set()
    with pytest.raises(OSError, match="away"):
        await failing
    assert await following == "1"


async def test_at_the_end_those_who_wait_get_the_error():
    worker = Worker()
    await worker.calls.close()
    waiting = [worker.calls.get(1)]
    await settled()
    waiting.append(worker.calls.get(2))
    await worker.calls.close()
    for future in waiting:
        with pytest.raises(EOFError, match="over"):
            await future


async def test_calls_after_a_batch_that_was_cut_off_are_executed():
    worker = Worker()
    cut_off = worker.calls.get(1)
    await settled()
    queued = worker.calls.get(2)
    await worker.calls.close()
    for future in (cut_off, queued):
        with pytest.raises(EOFError, match="over"):
            await future
    worker.going_on.set()
    assert await worker.calls.get(3) == "3"

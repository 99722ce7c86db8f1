"""Look-ups that are gathered: those of one turn go together, each is given its own, and no more go than are read."""

from __future__ import annotations

import asyncio
import contextvars

import pytest

from diptych.aio.batcher import Batch, Batcher

MOST_IN_BATCH = 64
MOST_BATCHES = 16


class Store:
    """Keeps what it is sent until it is told to answer: each key with itself."""

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.look_ups = Batcher(self.sent.append)

    def ask(self, *numbers: int) -> list[asyncio.Future[bytes | None]]:
        return [self.look_ups.get(b"%d" % number) for number in numbers]

    def answer(self) -> None:
        """All that has been sent up to now."""
        sent = list(self.sent)
        self.sent.clear()
        for batch in sent:
            batch.found(batch.keys)


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_of_one_turn_go_together_and_each_is_given_its_own():
    store = Store()
    asked = store.ask(*range(10))
    await settled()
    assert [len(batch.keys) for batch in store.sent] == [10]
    store.answer()
    assert await asyncio.gather(*asked) == [b"%d" % number for number in range(10)]


async def test_who_is_cancelled_is_not_asked_for_and_takes_nothing_from_others():
    store = Store()
    early, late, patient = store.ask(1, 2, 3)
    early.cancel()
    await settled()
    assert store.sent[0].keys == [b"2", b"3"]
    late.cancel()
    store.answer()
    assert await patient == b"3"


async def test_what_nobody_waits_for_is_not_sent():
    store = Store()
    (hasty,) = store.ask(1)
    hasty.cancel()
    await settled()
    assert store.sent == []
    store.ask(2)
    await settled()
    assert store.sent[0].keys == [b"2"]


async def test_what_is_under_way_is_bounded_and_the_rest_waits_for_its_turn():
    store = Store()
    most = MOST_IN_BATCH * MOST_BATCHES
    asked = store.ask(*range(3 * most))
    await settled()
    assert [len(batch.keys) for batch in store.sent] == [MOST_IN_BATCH] * MOST_BATCHES
    for future in asked[most : 2 * most]:
        future.cancel()
    asked += store.ask(-1)  # while others wait already
    while store.sent:
        store.answer()
        await settled()
    assert all(future.done() for future in asked)
    assert asked[-2].result() == b"%d" % (3 * most - 1)
    assert asked[-1].result() == b"-1"


async def test_what_can_not_be_told_at_once_is_waited_for():
    store = Store()
    (asked,) = store.ask(1)
    await settled()

    async def later() -> list[bytes | None]:
        await asyncio.sleep(0)
        return [b"late"]

    store.sent[0].resolve_later(later())
    assert await asked == b"late"


async def test_an_error_is_raised_for_all_and_leaves_room_for_others():
    store = Store()
    asked = store.ask(*range(MOST_IN_BATCH * MOST_BATCHES + 1))
    await settled()

    async def failing() -> list[bytes | None]:
        raise OSError("away")

    for batch in list(store.sent):
        store.sent.remove(batch)
        batch.resolve_later(failing())
    await settled()
    store.answer()
    for future in asked[:-1]:
        with pytest.raises(OSError, match="away"):
            await future
    assert await asked[-1] == b"%d" % (len(asked) - 1)


async def test_no_request_lends_its_context_to_the_others():
    whose: contextvars.ContextVar[str] = contextvars.ContextVar("whose", default="nobody's")
    store = Store()
    whose.set("the first one's")
    (asked,) = store.ask(1)
    await settled()

    async def found() -> list[bytes | None]:
        return [whose.get().encode()]

    store.sent[0].resolve_later(found())
    assert await asked == b"nobody's"

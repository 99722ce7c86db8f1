"""The gate between commits and switches of generations."""

from __future__ import annotations

import asyncio

import pytest

from diptych.hinge.gate import Gate


async def test_any_number_may_pass_at_once():
    gate = Gate()
    async with gate.passing(), gate.passing():
        pass


async def test_closing_waits_until_those_inside_have_left():
    gate, events, leave = Gate(), [], asyncio.Event()

    async def pass_through():
        async with gate.passing():
            events.append("inside")
            await leave.wait()
            events.append("left")

    async def close():
        async with gate.closed(10):
            events.append("closed")

    passer = asyncio.create_task(pass_through())
    await asyncio.sleep(0)
    closer = asyncio.create_task(close())
    await asyncio.sleep(0)
    leave.set()
    await asyncio.gather(passer, closer)
    assert events == ["inside", "left", "closed"]


async def test_nobody_passes_while_it_is_closed():
    gate, events = Gate(), []

    async def pass_through():
        async with gate.passing():
            events.append("passed")

    async with gate.closed(10):
        passer = asyncio.create_task(pass_through())
        for _ in range(5):
            await asyncio.sleep(0)
        events.append("still closed")
    await passer
    assert events == ["still closed", "passed"]


async def test_closing_gives_up_on_one_who_does_not_leave_and_opens_again():
    gate = Gate()
    async with gate.passing():
        with pytest.raises(TimeoutError):
            async with gate.closed(0.01):
                pytest.fail("closed with somebody inside")
        async with gate.passing():
            pass


async def test_it_opens_again_when_the_closed_section_fails():
    gate = Gate()
    with pytest.raises(RuntimeError):
        async with gate.closed(1):
            raise RuntimeError
    async with gate.passing():
        pass


async def test_a_cancelled_closer_opens_it_again():
    gate = Gate()
    async with gate.passing():
        closer = asyncio.create_task(gate.closed(10).__aenter__())
        await asyncio.sleep(0)
        closer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closer
    async with gate.passing():
        pass

"""A burst of events is one line of the log, with their number."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from diptych.aio.bursts import Burst, LoggedBurst


def test_a_burst_is_over_when_nothing_has_come_for_a_while_or_when_it_has_lasted_long():
    burst = Burst(quiet_s=0.5, longest_s=60)
    assert burst.left_s is None
    assert burst.note(0) is False
    assert burst.left_s is None
    assert [burst.note(), burst.note(2)] == [True, False]
    assert burst.left_s is not None
    assert 0 < burst.left_s <= 0.5
    assert burst.end()[0] == 3
    assert (burst.left_s, burst.note()) == (None, True)
    long = Burst(quiet_s=60, longest_s=-1)
    long.note()
    assert long.left_s is not None
    assert long.left_s < 0


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - the line of the log is the event
            await asyncio.sleep(0.01)


async def test_many_events_are_one_line(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    events = LoggedBurst(logging.getLogger("diptych.test"), logging.INFO, "%d events within %.0f s")
    for _ in range(100):
        events.note()
    assert caplog.messages == []
    await eventually(lambda: bool(caplog.messages))
    assert caplog.messages == ["100 events within 0 s"]
    events.note()
    events.tell()
    events.tell()
    assert caplog.messages[1:] == ["1 events within 0 s"]

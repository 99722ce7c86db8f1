"""The pace of a planned rebuild."""

from __future__ import annotations

import asyncio
import time

import pytest

from diptych.hinge.pace import Pace


@pytest.fixture
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The rests, in seconds, of which none is taken."""
    taken: list[float] = []

    async def sleep(seconds: float) -> None:
        taken.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return taken


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, as its only element."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


async def test_a_rest_is_two_thirds_of_the_part_before_it_and_bounded(
    rests: list[float], clock: list[float]
) -> None:
    pace = Pace()
    for seconds in (0.003, 0.03, 5):
        clock[0] += seconds
        await pace.rest()
    assert rests == pytest.approx([0.002, 0.02, 0.2])

"""The pace of long work that nobody waits for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.hinge import pace as pace_of_rebuilds
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


@pytest.fixture
def tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], object]:
    """Sets what the system tells of the thread: for how long it has run, and has waited for a core."""
    file = tmp_path / "schedstat"
    monkeypatch.setattr(pace_of_rebuilds, "_SCHEDULED", file)
    return file.write_text


async def test_a_rest_is_a_quarter_of_the_part_and_longer_where_cores_are_in_demand(
    rests: list[float], clock: list[float], tell: Callable[[str], object]
) -> None:
    tell("7 0 1\n")
    pace, waited_ns = Pace(), 0
    for seconds, waited_s in ((0.008, 0), (0.04, 0.008), (0.04, 0.03), (5, 0)):
        clock[0] += seconds
        waited_ns += int(waited_s * 1e9)
        tell(f"7 {waited_ns} 1\n")
        await pace.rest()
    assert rests == pytest.approx([0.002, 0.03, 0.085, 1.0])


@pytest.mark.parametrize("told", [None, "", "7\n", "what now\n"])
async def test_a_rest_is_two_thirds_of_the_part_where_the_system_does_not_tell(
    rests: list[float], clock: list[float], tell: Callable[[str], object], told: str | None
) -> None:
    if told is not None:
        tell(told)
    pace = Pace()
    for seconds in (0.006, 0.03, 5):
        clock[0] += seconds
        await pace.rest()
    assert rests == pytest.approx([0.004, 0.02, 1.0])


async def test_short_parts_rest_together(
    rests: list[float], clock: list[float], tell: Callable[[str], object]
) -> None:
    tell("7 0 1\n")
    pace = Pace()
    for _ in range(7):
        clock[0] += 0.002
        await pace.rest()
    assert rests == pytest.approx([0.0015, 0.0015])


async def test_a_pace_that_begins_later_has_no_rests_before(
    rests: list[float], clock: list[float], tell: Callable[[str], object]
) -> None:
    tell("7 0 1\n")
    pace = Pace(1.0, after_s=0.05)
    for _ in range(6):
        clock[0] += 0.02
        await pace.rest()
    assert rests == pytest.approx([0.02] * 4)


async def test_a_pace_that_minds_no_waiting_rests_for_a_share_of_the_part(
    rests: list[float], clock: list[float], tell: Callable[[str], object]
) -> None:
    tell("7 0 1\n")
    pace = Pace(1.0, 0.0, longest_s=0.2)
    for seconds in (0.02, 0.5):
        clock[0] += seconds
        tell(f"7 {15_000_000} 1\n")
        await pace.rest()
    assert rests == pytest.approx([0.02, 0.2])

"""Requests of other processes for passes: each is passed on, and not all at once."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from diptych.fence.contract import FenceId, FenceRow
from diptych.hinge import passes as passes_module
from diptych.hinge.passes import PassRequests
from diptych.redis import RedisIdentity
from tests.catalogue import eventually


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(passes_module, "SOON_S", 0.005)
    monkeypatch.setattr(passes_module, "APART_S", 0.05)


async def until(served: list[int], last: int) -> None:
    async def is_served() -> bool:
        return last in served

    await eventually(is_served, f"{last} is passed on")


async def test_those_that_come_within_a_moment_are_passed_on_together():
    served: list[int] = []
    requests = PassRequests(served.append)
    for _ in range(10):
        requests.add_delayed(7, leads=True)
    await until(served, 7)
    await asyncio.sleep(0.2)
    assert served == [7]


async def test_one_that_waits_is_not_put_off_by_later_ones_and_of_them_the_last_follows():
    served: list[int] = []
    requests = PassRequests(served.append)
    for number in (3, 4, 6, 5):
        requests.add_delayed(number, leads=True)
    await until(served, 6)
    assert served == [3, 6]


async def test_they_are_passed_on_apart():
    loop = asyncio.get_running_loop()
    served: list[int] = []
    times: list[float] = []

    def serve(after: int) -> None:
        served.append(after)
        times.append(loop.time())

    requests = PassRequests(serve)
    for number in range(40):
        requests.add_delayed(number, leads=True)
        await asyncio.sleep(0.005)
    await until(served, 39)
    assert all(later - earlier >= 0.049 for earlier, later in itertools.pairwise(times))
    assert served == sorted(served)


async def test_a_keeper_that_leads_comes_before_one_that_does_not():
    served: list[int] = []
    requests = [PassRequests(served.append) for _ in range(2)]
    requests[0].add_delayed(1, leads=False)
    requests[1].add_delayed(2, leads=True)
    await until(served, 1)
    assert served == [2, 1]


async def test_nothing_is_passed_on_after_the_end_until_somebody_asks_again():
    served: list[int] = []
    requests = PassRequests(served.append)
    requests.add_delayed(1, leads=True)
    requests.stop()
    requests.stop()
    await asyncio.sleep(0.05)
    assert served == []
    requests.add_delayed(2, leads=True)
    await until(served, 2)


def row_after(passes: int) -> FenceRow:
    ids = FenceId("d:Books", "1"), frozenset[str](), RedisIdentity("r", "i")
    return FenceRow(*ids, "g", True, 0.0, 0.0, None, passes, passes, "h", 0.0)


async def test_a_request_is_open_until_a_later_pass_has_ended_and_leaves_no_pause_until_then():
    requests = PassRequests(lambda _after: None)
    assert not requests.are_open(row_after(0))
    requests.add(5)
    requests.add(3)
    for passes in (4, 5):
        assert requests.are_open(row_after(passes))
        assert requests.pause_before(row_after(passes), 1.0) == 0.0
    assert not requests.are_open(row_after(6))
    assert requests.pause_before(row_after(6), 1.0) == 1.0
    assert requests.pause_before(row_after(6), -1.0) == 0.0

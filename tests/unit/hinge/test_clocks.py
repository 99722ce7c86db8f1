"""A step of either clock is noticed; different speeds within the margin, and slow readings, are not one."""

from __future__ import annotations

import pytest

from diptych.hinge.leases import Clocks


class Time:
    """A monotonic clock, and those of SQL and Redis, which begin elsewhere."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.clocks = Clocks(0.2, lambda: self.now)

    def read(self, passed: float, redis: float, sql: float, took: float = 0.0) -> str | None:
        self.now += passed
        self.clocks.begin()
        self.now += took
        return self.clocks.stepped(5e8 + redis, 1e9 + sql)


def test_clocks_that_go_evenly_have_not_stepped():
    time = Time()
    assert [time.read(1.0, n, n) for n in range(1, 50)] == [None] * 49


@pytest.mark.parametrize("name", ["SQL", "Redis"])
@pytest.mark.parametrize("step", [-3600.0, -2.0, 2.0, 3600.0])
def test_a_step_is_named_and_the_time_after_it_is_taken_as_it_is(name, step):
    time = Time()
    assert time.read(1.0, 1.0, 1.0) is None
    redis, sql = (2.0, 2.0 + step) if name == "SQL" else (2.0 + step, 2.0)
    assert f"the clock of {name} has stepped by" in str(time.read(1.0, redis, sql))
    assert time.read(1.0, redis + 1.0, sql + 1.0) is None


def test_a_tenth_of_difference_in_speed_is_no_step_and_more_is():
    time = Time()
    time.read(1.0, 0.0, 0.0)
    assert time.read(10.0, 10.9, 9.1) is None
    assert time.read(10.0, 10.9 + 14.0, 19.1) is not None


def test_a_reading_that_took_long_may_be_of_any_moment_of_it():
    for redis, sql in ((1.0, 6.0), (6.0, 1.0)):
        time = Time()
        time.read(1.0, 0.0, 0.0)
        assert time.read(1.0, redis, sql, took=5.0) is None


def test_clocks_that_are_distrusted_are_steady_again_after_that_time():
    time = Time()
    assert time.clocks.unsteady_s == 0
    time.clocks.distrust(2.0)
    assert time.clocks.unsteady_s == 2.0
    time.now += 1.5
    assert time.clocks.unsteady_s == 0.5
    time.now += 1.0
    assert time.clocks.unsteady_s == 0

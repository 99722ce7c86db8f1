"""The clock that processes of one machine share."""

from __future__ import annotations

from diptych.sql.sqlite.machine import MachineClock


def clock(machine: str | None, wall: float, monotonic: float) -> MachineClock:
    return MachineClock(machine, lambda: wall, lambda: monotonic)


def test_processes_of_one_machine_have_one_clock_whatever_their_wall_clocks_say():
    one, other = clock("m", 1000.0, 5.0), clock("m", 7777.0, 6.5)
    text = one.text("")
    assert one.now(text) == 1000.0
    assert other.text(text) == text
    assert other.now(text) == 1001.5


def test_of_another_machine_or_start_there_is_no_time_until_it_is_taken_over():
    one, other = clock("m", 1000.0, 5.0), clock("n", 2000.0, 5.0)
    text = one.text("")
    assert (other.now(text), other.now(""), other.now(None)) == (None, None, None)
    taken = other.text(text)
    assert (other.now(taken), one.now(taken)) == (2000.0, None)


def test_where_a_machine_can_not_be_told_it_is_the_wall_clock():
    one, other = clock(None, 1000.0, 5.0), clock("m", 1000.0, 5.0)
    text = one.text("")
    assert one.now(text) == 1000.0
    assert other.now(text) is None
    assert one.now(other.text("")) is None

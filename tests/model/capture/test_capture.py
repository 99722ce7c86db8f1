"""Changes by other programs, with triggers or without: no query misses one for longer than a lease."""

import pytest

from tests.model.capture.machine import machine
from tests.model.capture.rules import RULES, SOUND
from tests.model.explore import breadth_first


@pytest.mark.parametrize("name", SOUND)
def test_no_query_misses_a_change_for_longer_than_a_lease(name):
    explored = breadth_first(machine(SOUND[name]))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete


@pytest.mark.parametrize("name", RULES)
def test_a_dropped_rule_is_caught(name):
    """The story printed (pytest -s, or make model) is a shortest one."""
    explored = breadth_first(machine(RULES[name].config.without(name)), most=150_000)
    assert explored.violation, f"{name} dropped, and nothing wrong in {explored.states} states"


@pytest.mark.parametrize("name", RULES)
def test_with_the_rule_on_the_same_exploration_finds_nothing(name):
    """What was caught was caught because of the rule, not because of the configuration."""
    explored = breadth_first(machine(RULES[name].config), most=150_000)
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete

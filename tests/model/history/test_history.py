"""Databases that are put elsewhere or back, or that share a namespace: no query is shown another history."""

import pytest

from tests.model.explore import breadth_first
from tests.model.history.machine import machine
from tests.model.history.rules import COVERED, RULES, SOUND


@pytest.mark.parametrize("name", SOUND)
def test_no_query_is_shown_another_history_within_the_bounds(name):
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
    explored = breadth_first(machine(RULES[name].config), most=10_000)
    assert explored.violation is None, f"\n{explored.violation}"


@pytest.mark.parametrize("name", COVERED)
def test_a_rule_that_others_cover_for_is_not_missed_within_the_bounds(name):
    """Kept all the same, as a second line; if this fails the rule has become essential and belongs above."""
    explored = breadth_first(machine(COVERED[name][1].without(name)))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete

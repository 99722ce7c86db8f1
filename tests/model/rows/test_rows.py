"""Rows that move, killed commands, late scripts: no answer that rests on what queries do not show."""

import pytest

from tests.model.explore import breadth_first
from tests.model.rows.machine import machine
from tests.model.rows.rules import COVERED, RULES, SOUND


@pytest.mark.parametrize("name", SOUND)
def test_no_answer_rests_on_what_a_query_does_not_show(name):
    explored = breadth_first(machine(SOUND[name]))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete


@pytest.mark.parametrize("name", RULES)
def test_a_dropped_rule_is_caught(name):
    """The story printed (pytest -s, or make model) is a shortest one."""
    rule = RULES[name]
    explored = breadth_first(machine(rule.config.without(name, *rule.also)), most=150_000)
    assert explored.violation, f"{name} dropped, and nothing wrong in {explored.states} states"
    assert len(explored.violation.story) >= 3


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

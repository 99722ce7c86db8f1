"""The protocol's model: no stale read with all rules on, and one as soon as any rule is dropped."""

import pytest

from tests.model.config import Config, first_state
from tests.model.explore import breadth_first, walk
from tests.model.machine import machine
from tests.model.rules import COVERED, RULES, SOUND, WALKED
from tests.model.settle import settles

WALKS = 400


@pytest.mark.parametrize("name", SOUND)
def test_no_stale_read_in_any_state_within_the_bounds(name):
    explored = breadth_first(machine(SOUND[name]))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete


@pytest.mark.parametrize("name", RULES)
def test_a_dropped_rule_is_caught(name):
    """The story printed (pytest -s, or make model) is a shortest one."""
    rule = RULES[name]
    explored = breadth_first(machine(rule.config.without(name, *rule.also)), most=150_000)
    assert explored.violation, f"{name} dropped, and no stale read in {explored.states} states"
    assert len(explored.violation.story) >= 3


@pytest.mark.parametrize("name", RULES)
def test_with_the_rule_on_the_same_exploration_finds_nothing(name):
    """What was caught was caught because of the rule, not because of the configuration."""
    explored = breadth_first(machine(RULES[name].config), most=20_000)
    assert explored.violation is None, f"\n{explored.violation}"


@pytest.mark.parametrize("name", COVERED)
def test_a_rule_that_others_cover_for_is_not_missed_within_the_bounds(name):
    """Kept all the same, as a second line; if this fails the rule has become essential and belongs above."""
    explored = breadth_first(machine(COVERED[name][1].without(name)))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete


@pytest.mark.parametrize("derived", [False, True])
def test_random_walks_find_nothing_and_settle(derived):
    """When all faults are over, Redis serves what SQL holds and no command is left waiting."""
    config = WALKED._replace(derived=derived)
    for seed in range(WALKS):
        last, explored = walk(machine(config), seed)
        assert explored.violation is None, f"seed {seed}\n{explored.violation}"
        assert settles(last, config), f"seed {seed} does not settle"


def test_what_cannot_settle_is_noticed():
    """An emptied Redis is built again once the lease has run out, and not before."""
    emptied = first_state(Config(empty=True))
    assert settles(emptied, WALKED)
    for_ever = emptied.sql._replace(fence=emptied.sql.fence._replace(lease=1000))
    assert not settles(emptied._replace(sql=for_ever), WALKED)

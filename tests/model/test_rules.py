"""The models of the protocol: nothing wrong with all rules on, and a story as soon as any rule is dropped."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import pytest

from tests.model import machine, rules
from tests.model.capture import machine as capture_machine
from tests.model.capture import rules as capture_rules
from tests.model.derived import machine as derived_machine
from tests.model.derived import rules as derived_rules
from tests.model.explore import Machine, breadth_first
from tests.model.history import machine as history_machine
from tests.model.history import rules as history_rules
from tests.model.rows import machine as rows_machine
from tests.model.rows import rules as rows_rules
from tests.model.rules import Rule


class Model(NamedTuple):
    """A model: how its configurations are played, its rules, and those that others cover for.

    A story of its violations has ``steps`` steps at least: one that is shorter would be wrong from the beginning.
    """

    play: Callable[[Any], Machine[Any]]
    rules: Mapping[str, Rule[Any]]
    sound: Mapping[str, Any]
    covered: Mapping[str, tuple[str, Any]]
    steps: int = 3


MODELS = {
    "leases": Model(machine.machine, rules.RULES, rules.SOUND, rules.COVERED),
    "rows": Model(rows_machine.machine, rows_rules.RULES, rows_rules.SOUND, rows_rules.COVERED),
    "derived": Model(
        derived_machine.machine, derived_rules.RULES, derived_rules.SOUND, derived_rules.COVERED
    ),
    # Of two databases under one namespace, the first query may be led astray.
    "history": Model(
        history_machine.machine, history_rules.RULES, history_rules.SOUND, history_rules.COVERED, steps=1
    ),
    "capture": Model(capture_machine.machine, capture_rules.RULES, capture_rules.SOUND, {}),
}


def _each(what: str) -> list[Any]:
    found = [(name, model, key) for name, model in MODELS.items() for key in getattr(model, what)]
    return [pytest.param(model, key, id=f"{name}: {key}") for name, model, key in found]


@pytest.mark.parametrize(("model", "name"), _each("sound"))
def test_nothing_is_wrong_in_any_state_within_the_bounds(model, name):
    explored = breadth_first(model.play(model.sound[name]))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete


@pytest.mark.parametrize(("model", "name"), _each("rules"))
def test_a_dropped_rule_is_caught(model, name):
    """The story printed (pytest -s, or make model) is a shortest one."""
    rule = model.rules[name]
    explored = breadth_first(model.play(rule.config.without(name, *rule.also)), most=150_000)
    assert explored.violation, f"{name} dropped, and nothing wrong in {explored.states} states"
    assert len(explored.violation.story) >= model.steps


@pytest.mark.parametrize(("model", "name"), _each("rules"))
def test_with_the_rule_on_the_same_exploration_finds_nothing(model, name):
    """What was caught was caught because of the rule, not because of the configuration."""
    explored = breadth_first(model.play(model.rules[name].config), most=20_000)
    assert explored.violation is None, f"\n{explored.violation}"


@pytest.mark.parametrize(("model", "name"), _each("covered"))
def test_a_rule_that_others_cover_for_is_not_missed_within_the_bounds(model, name):
    """Kept all the same, as a second line; if this fails the rule has become essential and belongs above."""
    explored = breadth_first(model.play(model.covered[name][1].without(name)))
    assert explored.violation is None, f"\n{explored.violation}"
    assert explored.complete

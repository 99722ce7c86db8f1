"""`make model`: every dropped rule's story, larger explorations, then random walks for as long as asked."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tests.model.capture import machine as capture_machine
from tests.model.capture import rules as capture_rules
from tests.model.derived import machine as derived_machine
from tests.model.derived import rules as derived_rules
from tests.model.explore import Explored, Machine, breadth_first, walk
from tests.model.history import machine as history_machine
from tests.model.history import rules as history_rules
from tests.model.machine import machine
from tests.model.rows import machine as rows_machine
from tests.model.rows import rules as rows_rules
from tests.model.rules import LARGER, RULES, SOUND, WALKED, Rule
from tests.model.settle import settles

Explorations = Iterator[tuple[str, Machine[Any]]]


def main() -> int:
    """Exit status 1 if a violation was found with all rules on, or a dropped rule was not caught."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="when to stop walking")
    parser.add_argument("--seed", type=int, default=0, help="of the first walk")
    parser.add_argument("--most", type=int, default=3_000_000, help="states of one exploration")
    parser.add_argument("--rules", action="store_true", help="only tell the dropped rules' stories")
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    missed = _tell_rules(RULES, machine)
    missed += _tell_rules(rows_rules.RULES, rows_machine.machine)
    missed += _tell_rules(derived_rules.RULES, derived_machine.machine)
    missed += _tell_rules(history_rules.RULES, history_machine.machine)
    missed += _tell_rules(capture_rules.RULES, capture_machine.machine)
    if given.rules or missed:
        return int(missed > 0)
    for name, explored in _explorations(given.seed):
        if time.monotonic() > end:
            break
        if _report(name, breadth_first(explored, given.most)):
            return 1
    return _walk(given.seed, end)


def _explorations(seed: int) -> Explorations:
    for name, config in {**SOUND, **LARGER}.items():
        yield name, machine(config)
    for name, rows in {**rows_rules.SOUND, **rows_rules.LARGER}.items():
        yield name, rows_machine.machine(rows)
    for name, derived in {**derived_rules.SOUND, **derived_rules.LARGER}.items():
        yield name, derived_machine.machine(derived)
    for name, history in {**history_rules.SOUND, **history_rules.LARGER}.items():
        yield name, history_machine.machine(history)
    for name, capture in {**capture_rules.SOUND, **capture_rules.LARGER}.items():
        yield name, capture_machine.machine(capture)
    # In turn: either has hundreds.
    for (name, rows), (other, derived) in zip(
        rows_rules.triples(seed), derived_rules.triples(seed), strict=False
    ):
        yield name, rows_machine.machine(rows)
        yield other, derived_machine.machine(derived)


def _tell_rules(rules: Mapping[str, Rule[Any]], play: Callable[[Any], Machine[Any]]) -> int:
    missed = 0
    for name, rule in rules.items():
        explored = breadth_first(play(rule.config.without(name, *rule.also)))
        missed += explored.violation is None
        together = f" (dropped with {', '.join(rule.also)})" if rule.also else ""
        _say(f"Without {name!r}{together}, step {rule.step}: {rule.says}. {explored.states} states.")
        _say(f"{explored.violation or 'NOT CAUGHT'}\n")
    return missed


def _report(name: str, explored: Explored) -> bool:
    _say(f"{name}: {explored.states} states, {'all within the bounds' if explored.complete else 'stopped'}")
    if explored.violation:
        _say(str(explored.violation))
    return explored.violation is not None


def _walk(seed: int, end: float) -> int:
    walks = states = 0
    while time.monotonic() < end or not walks:
        for config in (WALKED, WALKED._replace(derived=True)):
            last, explored = walk(machine(config), seed)
            walks, states = walks + 1, states + explored.states
            if explored.violation or not settles(last, config):
                _say(f"seed {seed}, derived={config.derived}: {explored.violation or 'does not settle'}")
                return 1
        seed += 1
    _say(f"{walks} random walks of {states} steps: nothing found; the next seed is {seed}")
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

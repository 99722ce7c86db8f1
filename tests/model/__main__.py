"""`make model`: every dropped rule's story, larger explorations, then random walks for as long as asked."""

import argparse
import sys
import time

from tests.model.explore import Explored, breadth_first, walk
from tests.model.rules import LARGER, RULES, SOUND, WALKED
from tests.model.settle import settles


def main() -> int:
    """Exit status 1 if a violation was found with all rules on, or a dropped rule was not caught."""
    parser = argparse.ArgumentParser(prog="make model", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="when to stop walking")
    parser.add_argument("--seed", type=int, default=0, help="of the first walk")
    parser.add_argument("--most", type=int, default=3_000_000, help="states of one exploration")
    parser.add_argument("--rules", action="store_true", help="only tell the dropped rules' stories")
    given = parser.parse_args()
    end = time.monotonic() + given.seconds
    failed = _tell_rules()
    if given.rules or failed:
        return failed
    for name, config in {**SOUND, **LARGER}.items():
        if time.monotonic() > end:
            break
        if _report(name, breadth_first(config, given.most)):
            return 1
    return _walk(given.seed, end)


def _tell_rules() -> int:
    missed = 0
    for name, rule in RULES.items():
        explored = breadth_first(rule.config.without(name, *rule.also))
        missed += explored.violation is None
        together = f" (dropped with {', '.join(rule.also)})" if rule.also else ""
        _say(f"Without {name!r}{together}, step {rule.step}: {rule.says}. {explored.states} states.")
        _say(f"{explored.violation or 'NOT CAUGHT'}\n")
    return int(missed > 0)


def _report(name: str, explored: Explored) -> bool:
    _say(f"{name}: {explored.states} states, {'all within the bounds' if explored.complete else 'stopped'}")
    if explored.violation:
        _say(str(explored.violation))
    return explored.violation is not None


def _walk(seed: int, end: float) -> int:
    walks = states = 0
    while time.monotonic() < end or not walks:
        for config in (WALKED, WALKED._replace(derived=True)):
            last, explored = walk(config, seed)
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

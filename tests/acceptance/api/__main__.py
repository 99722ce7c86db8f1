"""``make api``: Schemathesis against every application, with as many requests for each as asked.

A run with the same seed makes the same requests, as far as the answers are the same.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.acceptance.api.applications import APPLICATIONS
from tests.acceptance.api.run import run

FIRST = "examples,coverage,fuzzing,stateful"
FURTHER = "fuzzing,stateful"
"""Phases of the first round, and of further ones: what is not random is not repeated."""


def main() -> int:
    """Exit status 1 if an answer was not as it should be."""
    parser = argparse.ArgumentParser(prog="make api", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="to each application (default 10,000)")
    parser.add_argument(
        "--examples", type=int, default=50, help="for an operation, a phase and a round (default 50)"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the requests; any, if not given")
    parser.add_argument(
        "applications", nargs="*", metavar="NAME", help=f"of {', '.join(APPLICATIONS)}; all, if none"
    )
    given = parser.parse_args()
    if unknown := sorted(set(given.applications) - APPLICATIONS.keys()):
        parser.error(f"no such application: {', '.join(unknown)}; there are {', '.join(APPLICATIONS)}")
    seed = random.randrange(1_000_000) if given.seed is None else given.seed
    names = given.applications or list(APPLICATIONS)
    found = [_try(name, given.requests, given.examples, seed) for name in names]
    return 0 if all(found) else 1


def _try(name: str, requests: int, examples: int, seed: int) -> bool:
    done, phases = 0, FIRST
    with APPLICATIONS[name]() as url:
        while done < requests:
            result = run(url, seed=seed, examples=examples, phases=phases)
            done += result.requests
            _say(f"{name}: {done:,} requests, seed {seed}: {'all well' if result.is_well else 'not well'}")
            if not result.is_well:
                _say(result.report)
                return False
            seed, phases = seed + 1, FURTHER
    return True


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

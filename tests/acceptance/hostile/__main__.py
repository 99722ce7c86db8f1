"""``python -m tests.acceptance.hostile``: what the demonstration, served by `diptych run`, stands.

First connections that are held open: silent ones, half heads, half bodies, one kind after the other and all together,
on one worker and on two, with file descriptors in plenty and at their limit; `GET /health` has to be answered within
a second all the while. Then requests that no client sends: each has to get problem details and security headers.
"""

from __future__ import annotations

import argparse
import random
import sys

from tests.acceptance.hostile.flood import flood, rounds
from tests.acceptance.hostile.sending import send_all
from tests.acceptance.hostile.serving import LIMIT_S, at_limit, plenty
from tests.acceptance.serving import CatalogueServer


def main() -> int:
    """Exit status 1 if anything was not as it has to be."""
    parser = argparse.ArgumentParser(prog="python -m tests.acceptance.hostile", description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000, help="how many requests (default 20000)")
    parser.add_argument("--connections", type=int, default=1_200, help="of each kind (default 1200)")
    parser.add_argument("--seed", type=int, default=None, help="of the requests; any, if not given")
    given = parser.parse_args()
    faults = []
    if given.connections:
        for workers in (1, 2):
            for name, server in (("plenty", plenty(workers)), ("at the limit", at_limit(workers))):
                faults += _flooded(f"{workers} workers, {name}", server, given.connections)
    if given.requests:
        faults += _asked(given.requests, random.randrange(1_000_000) if given.seed is None else given.seed)
    for fault in faults[:50]:
        _say(f"FAULT {fault}")
    _say(f"{len(faults)} faults")
    return 1 if faults else 0


def _flooded(name: str, served: CatalogueServer, number: int) -> list[str]:
    faults = []
    with served as server:
        for kinds in rounds():
            found = flood(server.port, kinds, number, wait_s=6 * LIMIT_S)
            ends = ", ".join(
                f"{ending.number} {kind} ended within {ending.longest_s:.2f} s {dict(ending.answers) or ''}"
                for kind, ending in found.endings.items()
            )
            worst = max(found.health_s)
            _say(
                f"{name}: {ends}; health {len(found.health_s)} times, {worst:.2f} s at most {found.failures or ''}"
            )
            if found.left or worst > 1 or found.failures:
                faults.append(f"{name}, {kinds}: {found.left} left, {worst:.2f} s, {found.failures[:3]}")
    return faults


def _asked(number: int, seed: int) -> list[str]:
    with plenty(1) as server:
        statuses, faults = send_all(server.port, number, seed)
    _say(f"seed {seed}: {dict(statuses.most_common())}")
    return faults


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

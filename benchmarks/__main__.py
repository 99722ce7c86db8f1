"""``python -m benchmarks [NAME…] [--quick]``: runs the benchmarks, prints tables, keeps them in ``results/``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from types import ModuleType

from benchmarks import (
    cut_off,
    dispatch,
    hinge,
    idle,
    loop_lag,
    postgres_drivers,
    reads,
    recovery,
    sizes,
    tail,
    writes,
)
from benchmarks.claims import judge
from benchmarks.machine import describe_run
from benchmarks.report import Report, as_summary, as_verdicts, save
from benchmarks.runner import run

BENCHMARKS: dict[str, ModuleType] = {
    "reads": reads,
    "writes": writes,
    "tail": tail,
    "sizes": sizes,
    "dispatch": dispatch,
    "loop_lag": loop_lag,
    "postgres_drivers": postgres_drivers,
    "hinge": hinge,
    "idle": idle,
    "recovery": recovery,
    "cut_off": cut_off,
}
"""A benchmark is a module: its docstring says what it shows, ``cases(quick)`` gives what is compared.

It may have ``CLAIMS``, which are judged by the figures, ``plots(comparisons)``, which gives drawings (SVG) by what is
drawn, and ``versions()``, which gives those of what it runs beside Python's packages.
"""

QUICK = ("reads", "writes", "tail", "sizes", "dispatch")
"""What runs quickly if no name is given: together they take less than two minutes. The others take longer even so."""


def main(arguments: list[str]) -> None:
    chosen = _parse(arguments)
    command = " ".join(["python -m benchmarks", *arguments])
    for name in chosen.names or (QUICK if chosen.quick else BENCHMARKS):
        _run(name, command, quick=chosen.quick)
    if chosen.quick and not chosen.names:
        print(
            f"Not run, since they take longer: {', '.join(name for name in BENCHMARKS if name not in QUICK)}"
        )


def _run(name: str, command: str, *, quick: bool) -> None:
    module = BENCHMARKS[name]
    # Described before each one, so that the load average says what else the machine was doing then.
    circumstances = describe_run(command)
    about = (module.__doc__ or "").strip()
    print(f"# {name}\n\n{about}\n", flush=True)
    comparisons = asyncio.run(run(module.cases(quick), _show))
    if hasattr(module, "versions"):  # asked for afterwards, since it may be installed only now
        circumstances |= module.versions()
    verdicts = judge(getattr(module, "CLAIMS", ()), comparisons)
    drawn = module.plots(comparisons) if hasattr(module, "plots") else {}
    files = save(Report(name, about, circumstances, quick, comparisons, verdicts, drawn))
    for shown in filter(None, [as_summary(comparisons), as_verdicts(verdicts)]):
        print(shown)
    print(f"Written: {', '.join(os.path.relpath(file) for file in files)}\n", flush=True)


def _show(table: str) -> None:
    print(table, flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Without a NAME all of them run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    quick = f"few short rounds: to see that it works; without a NAME: {', '.join(QUICK)}"
    parser.add_argument("--quick", action="store_true", help=quick)
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    return chosen


if __name__ == "__main__":
    main(sys.argv[1:])

"""``python -m benchmarks [NAME…] [--quick]``: runs the benchmarks, prints tables, keeps them in ``results/``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from types import ModuleType

from benchmarks import cut_off, dispatch, hinge, idle, postgres_drivers, recovery
from benchmarks.machine import describe_run
from benchmarks.report import Report, as_summary, save
from benchmarks.runner import run

BENCHMARKS: dict[str, ModuleType] = {
    "dispatch": dispatch,
    "postgres_drivers": postgres_drivers,
    "hinge": hinge,
    "idle": idle,
    "recovery": recovery,
    "cut_off": cut_off,
}
"""A benchmark is a module: its docstring says what it shows, ``cases(quick)`` gives what is compared."""


def main(arguments: list[str]) -> None:
    chosen = _parse(arguments)
    command = " ".join(["python -m benchmarks", *arguments])
    for name in chosen.names or BENCHMARKS:
        # Described before each one, so that the load average says what else the machine was doing then.
        circumstances = describe_run(command)
        about = (BENCHMARKS[name].__doc__ or "").strip()
        print(f"# {name}\n\n{about}\n", flush=True)
        comparisons = asyncio.run(run(BENCHMARKS[name].cases(chosen.quick), _show))
        files = save(Report(name, about, circumstances, chosen.quick, comparisons))
        if summary := as_summary(comparisons):
            print(summary)
        print(f"Written: {' and '.join(os.path.relpath(file) for file in files)}\n", flush=True)


def _show(table: str) -> None:
    print(table, flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Without a NAME all of them run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--quick", action="store_true", help="few short rounds: to see that it works")
    chosen = parser.parse_args(arguments)
    if unknown := [name for name in chosen.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    return chosen


if __name__ == "__main__":
    main(sys.argv[1:])

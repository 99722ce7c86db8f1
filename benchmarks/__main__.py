"""``python -m benchmarks [NAME…] [--quick] [--against REV]``: runs the benchmarks, keeps tables in ``results/``."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from types import ModuleType
from typing import NamedTuple

from benchmarks import (
    bad_row,
    capture,
    commands,
    cut_off,
    dispatch,
    frameworks,
    hinge,
    idle,
    lists,
    loop_lag,
    nested,
    reads,
    recovery,
    several_rows,
    sizes,
    switched_on,
    tail,
    verify,
    writes,
)
from benchmarks.claims import judge
from benchmarks.machine import describe_run
from benchmarks.report import Report, as_summary, as_verdicts, save
from benchmarks.runner import Case, run
from benchmarks.trees import Compared, Tree, taken

BENCHMARKS: dict[str, ModuleType] = {
    "reads": reads,
    "writes": writes,
    "tail": tail,
    "frameworks": frameworks,
    "sizes": sizes,
    "dispatch": dispatch,
    "loop_lag": loop_lag,
    "hinge": hinge,
    "idle": idle,
    "recovery": recovery,
    "cut_off": cut_off,
    "bad_row": bad_row,
    "capture": capture,
    "switched_on": switched_on,
    "lists": lists,
    "nested": nested,
    "several_rows": several_rows,
    "verify": verify,
}
"""A benchmark is a module: its docstring says what it shows, ``cases(quick)`` gives what is compared.

It may have ``CLAIMS``, which are judged by the figures, ``plots(comparisons)``, which gives drawings (SVG) by what is
drawn, and ``versions()``, which gives those of what it runs beside Python's packages.
"""

AGAINST: dict[str, Callable[[bool, Sequence[Tree]], AsyncGenerator[Case, None]]] = {
    "hinge": commands.against,
    "reads": reads.against,
    "writes": writes.against,
    "tail": tail.against,
    "sizes": sizes.against,
    "dispatch": dispatch.against,
}
"""What ``--against`` compares two trees by. Its docstring says what is done; the first tree is the baseline."""

QUICK = ("reads", "writes", "tail", "sizes", "dispatch")
"""What runs quickly if no name is given: together they take less than two minutes. The others take longer even so."""


def main(arguments: list[str]) -> None:
    chosen = _parse(arguments)
    how = Run(" ".join(["python -m benchmarks", *arguments]), chosen.quick)
    if chosen.against is None:
        for name in chosen.names or (QUICK if chosen.quick else BENCHMARKS):
            how.benchmark(name)
    else:
        with taken(chosen.against) as compared:
            for name in chosen.names or AGAINST:
                how.against(name, compared)
    if chosen.quick and not chosen.names and chosen.against is None:
        print(
            f"Not run, since they take longer: {', '.join(name for name in BENCHMARKS if name not in QUICK)}"
        )


class Run(NamedTuple):
    """How the benchmarks are run, whichever they are."""

    command: str
    quick: bool

    def benchmark(self, name: str) -> None:
        """Runs one, and judges it by what it claims."""
        module = BENCHMARKS[name]
        report = self._report(name, module.__doc__, module.cases(self.quick))
        if hasattr(module, "versions"):  # asked for afterwards, since it may be installed only now
            report.circumstances.update(module.versions())
        verdicts = judge(getattr(module, "CLAIMS", ()), report.comparisons)
        drawn = module.plots(report.comparisons) if hasattr(module, "plots") else {}
        self._keep(report._replace(verdicts=verdicts, plots=drawn))

    def against(self, name: str, compared: Compared) -> None:
        """Runs what one compares two trees by."""
        against = AGAINST[name]
        report = self._report(f"{name}-against", against.__doc__, against(self.quick, compared.trees))
        report.circumstances.update(compared.facts)
        self._keep(report)

    def _report(self, name: str, doc: str | None, cases: AsyncGenerator[Case, None]) -> Report:
        # Described before each one, so that the load average says what else the machine was doing then.
        circumstances = describe_run(self.command)
        about = inspect.cleandoc(doc or "")
        print(f"# {name}\n\n{about}\n", flush=True)
        return Report(name, about, circumstances, self.quick, asyncio.run(run(cases, _show)))

    def _keep(self, report: Report) -> None:
        files = save(report)
        for shown in filter(None, [as_summary(report.comparisons), as_verdicts(report.verdicts)]):
            print(shown)
        print(f"Written: {', '.join(os.path.relpath(file) for file in files)}\n", flush=True)


def _show(table: str) -> None:
    print(table, flush=True)


def _parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Without a NAME all of them run.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    quick = f"few short rounds: to see that it works; without a NAME: {', '.join(QUICK)}"
    parser.add_argument("--quick", action="store_true", help=quick)
    against = f"compares this checkout with a revision of it, by {', '.join(AGAINST)}"
    parser.add_argument("--against", metavar="REV", help=against)
    chosen = parser.parse_args(arguments)
    known = BENCHMARKS if chosen.against is None else AGAINST
    if unknown := [name for name in chosen.names if name not in known]:
        what = "no benchmark" if chosen.against is None else "no benchmark that compares revisions"
        parser.error(f"{what} is called {', '.join(unknown)}; there are: {', '.join(known)}")
    return chosen


if __name__ == "__main__":
    main(sys.argv[1:])

"""Compares candidates fairly: one after the other in each of several rounds, in turning order, in one process.

What slows the machine for a while then slows them alike, so the ratio within a round tells more than the figures.
"""

from __future__ import annotations

import contextlib
import gc
import math
import statistics
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import NamedTuple

from benchmarks.report import as_table

Sample = Mapping[str, float]
"""What one round of one candidate gave, by metric. A metric's name holds its unit.

Metrics whose names end with "in all" are added up over the rounds; of others the median counts.
"""

Candidate = Callable[[], Awaitable[Sample]]


class Case(NamedTuple):
    """What is compared: the candidates do the same work, and the first is what the others are measured by.

    Without ``warm_up`` the first round counts, too: for candidates that warm up themselves, or take long. If they are
    not ``compared`` they stand side by side, with neither ratios nor differences.
    """

    name: str
    rounds: int
    candidates: Mapping[str, Candidate]
    warm_up: bool = True
    compared: bool = True


class Spread(NamedTuple):
    """A figure over the rounds: half of them lie between the quartiles."""

    median: float
    lower_quartile: float
    upper_quartile: float


class Figure(NamedTuple):
    """One metric of one candidate; ``ratio`` and ``difference`` are to the first one in the same round."""

    value: Spread
    ratio: Spread
    difference: Spread


class Comparison(NamedTuple):
    """A case with what came out: figures by metric and candidate, and the samples they are made of."""

    name: str
    rounds: int
    figures: dict[str, dict[str, Figure]]
    samples: dict[str, list[Sample]]
    compared: bool = True


async def run(cases: AsyncGenerator[Case, None], show: Callable[[str], None]) -> list[Comparison]:
    """Compares each case and hands its table to ``show`` at once. A case may rely on what its generator set up."""
    comparisons: list[Comparison] = []
    async with contextlib.aclosing(cases):
        async for case in cases:
            comparisons.append(await compare(case))
            show(as_table(comparisons[-1]))
    return comparisons


async def compare(case: Case) -> Comparison:
    """Runs every candidate once a round. A round that warms up comes before them and does not count."""
    samples: dict[str, list[Sample]] = {name: [] for name in case.candidates}
    for number in range(-1 if case.warm_up else 0, case.rounds):
        names = list(case.candidates)
        for name in names if number % 2 else reversed(names):
            gc.collect()  # nobody pays for another's garbage
            sample = await case.candidates[name]()
            if number >= 0:
                samples[name].append(sample)
    return Comparison(case.name, case.rounds, _figures(samples), samples, case.compared)


def _figures(samples: Mapping[str, list[Sample]]) -> dict[str, dict[str, Figure]]:
    by_metric: dict[str, dict[str, Figure]] = {}
    first = next(iter(samples.values()))
    for metric in first[0]:
        baseline = [sample[metric] for sample in first]
        by_metric[metric] = {
            name: _figure(*_summed(metric, [sample[metric] for sample in own], baseline))
            for name, own in samples.items()
        }
    return by_metric


def _summed(metric: str, values: list[float], baseline: list[float]) -> tuple[list[float], list[float]]:
    return ([sum(values)], [sum(baseline)]) if metric.endswith("in all") else (values, baseline)


def _figure(values: list[float], baseline: list[float]) -> Figure:
    pairs = list(zip(values, baseline, strict=True))
    ratios = [v / b for v, b in pairs if b] or [math.nan]  # of nothing there is no multiple
    return Figure(spread_of(values), spread_of(ratios), spread_of([v - b for v, b in pairs]))


def spread_of(values: list[float]) -> Spread:
    """The median of these figures, and their quartiles."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, lower, upper)

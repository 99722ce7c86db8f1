"""Results for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from benchmarks.claims import Verdict
    from benchmarks.runner import Comparison, Figure, Spread

RESULTS = Path(__file__).with_name("results")
QUICK_RESULTS = RESULTS / "quick"
"""Quick runs show that a benchmark works, not how fast anything is; these are not kept in the repository."""


class Report(NamedTuple):
    """A benchmark that ran: where, when, by which command, and what came out."""

    name: str
    about: str
    circumstances: dict[str, str]
    quick: bool
    comparisons: Sequence[Comparison]
    verdicts: Sequence[Verdict] = ()
    plots: Mapping[str, str] = MappingProxyType({})
    """SVG, by what is drawn."""
    summary: str | None = None
    """What stands first, as Markdown; by default all ratios."""


def save(report: Report) -> list[Path]:
    """Writes ``NAME.md``, ``NAME.json`` and the plots, replacing those of an earlier run; returns their paths."""
    folder = QUICK_RESULTS if report.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    text, data = folder / f"{report.name}.md", folder / f"{report.name}.json"
    text.write_text(_as_page(report))
    data.write_bytes(msgspec.json.format(msgspec.json.encode(_as_data(report))) + b"\n")
    drawn = [folder / _plot_file(report, name) for name in report.plots]
    for file, svg in zip(drawn, report.plots.values(), strict=True):
        file.write_text(svg)
    return [text, data, *drawn]


def as_table(comparison: Comparison) -> str:
    """A Markdown table for each metric, aligned so that it can be read as it is."""
    if comparison.compared:
        tables = [_table(metric, figures) for metric, figures in comparison.figures.items()]
    else:
        tables = [_side_by_side(comparison)]
    return f"## {comparison.name} ({comparison.rounds} rounds)\n\n" + "\n".join(tables)


def summary_of(report: Report) -> str:
    """The report's own summary, or all ratios."""
    return as_summary(report.comparisons) if report.summary is None else report.summary


def as_summary(comparisons: Sequence[Comparison]) -> str:
    """The ratios alone, one line a case and candidate; empty if there is but one case."""
    comparisons = [one for one in comparisons if one.compared]
    if len(comparisons) < 2:
        return ""
    metrics = list(dict.fromkeys(metric for one in comparisons for metric in one.figures))
    rows = [["ratio", *metrics]]
    for one in comparisons:
        first, *others = one.samples
        for name in others:
            ratios = [
                shown(one.figures[metric][name].ratio) if metric in one.figures else "–" for metric in metrics
            ]
            rows.append([f"{one.name}: {name} / {first}", *ratios])
    return f"## All ratios\n\n{aligned(rows)}"


def as_verdicts(verdicts: Sequence[Verdict]) -> str:
    """What was to be shown, and whether it was; empty if nothing was."""
    if not verdicts:
        return ""
    words = {True: "holds", False: "**does not hold**", None: "not measured"}
    rows = [["to be shown", "measured", ""]]
    for one in verdicts:
        rows.append([one.claim.text, "–" if one.ratio is None else rounded(one.ratio), words[one.holds]])
    return f"## What was to be shown\n\n{aligned(rows)}"


def _plot_file(report: Report, name: str) -> str:
    return f"{report.name}-{re.sub('[^a-z0-9]+', '-', name.lower())}.svg"


def _as_page(report: Report) -> str:
    facts = "\n".join(f"- {name}: {fact}" for name, fact in report.circumstances.items())
    images = "\n".join(f"![{name}]({_plot_file(report, name)})\n" for name in report.plots)
    parts = [as_verdicts(report.verdicts), images, summary_of(report)]
    tables = "\n".join(filter(None, [*parts, *map(as_table, report.comparisons)]))
    reading = (
        "Medians over the rounds, with quartiles in brackets; ratio and difference are taken round by round."
    )
    return f"# {report.name}\n\n{report.about}\n\n{facts}\n\n{reading}\n\n{tables}"


def _as_data(report: Report) -> dict[str, object]:
    comparisons = [
        {
            "name": one.name,
            "rounds": one.rounds,
            "figures": {
                metric: {candidate: _as_dict(figure) for candidate, figure in figures.items()}
                for metric, figures in one.figures.items()
            },
            "samples": one.samples,
        }
        for one in report.comparisons
    ]
    verdicts = [{"claim": one.claim.text, "ratio": one.ratio, "holds": one.holds} for one in report.verdicts]
    return {
        "name": report.name,
        "circumstances": report.circumstances,
        "verdicts": verdicts,
        "comparisons": comparisons,
    }


def _as_dict(figure: Figure) -> dict[str, dict[str, float]]:
    return {name: spread._asdict() for name, spread in figure._asdict().items()}


def _table(metric: str, figures: Mapping[str, Figure]) -> str:
    rows = [[metric, "median", "ratio", "difference"]]
    for number, (name, figure) in enumerate(figures.items()):
        compared = [shown(figure.ratio), shown(figure.difference)] if number else ["1", "0"]
        rows.append([name, shown(figure.value), *compared])
    return aligned(rows)


def _side_by_side(comparison: Comparison) -> str:
    rows = [["median", *comparison.samples]]
    for metric, figures in comparison.figures.items():
        rows.append([metric, *(shown(figure.value) for figure in figures.values())])
    return aligned(rows)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table of these rows, the first of which is its head."""
    heading, *others = rows
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    rows = [heading, rule, *others]
    return "".join(f"| {_padded(row, widths)} |\n" for row in rows)


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    return " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)])


def shown(spread: Spread) -> str:
    """The median, with the quartiles in brackets."""
    if math.isnan(spread.median):
        return "–"
    median, lower, upper = map(rounded, spread)
    if lower == median == upper:
        return median
    return f"{median} [{lower} … {upper}]"


def rounded(value: float) -> str:
    """Three digits that count; more would be noise."""
    if abs(value) >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"

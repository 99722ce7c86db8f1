"""What is to be shown by a benchmark, and whether its figures do."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.runner import Comparison


class Claim(NamedTuple):
    """One candidate's metric over another's, in the same round, is at least ``at_least`` or at most ``at_most``."""

    case: str
    metric: str
    candidate: str
    other: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def text(self) -> str:
        """What is claimed, in words."""
        bound = f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"
        return f"{self.case}, {self.metric}: {self.candidate} {bound} × {self.other}"


class Verdict(NamedTuple):
    """The median ratio of all rounds; None, both, if a candidate was not there."""

    claim: Claim
    ratio: float | None
    holds: bool | None


def judge(claims: Sequence[Claim], comparisons: Sequence[Comparison]) -> list[Verdict]:
    """A verdict on each claim whose case was run."""
    by_name = {comparison.name: comparison for comparison in comparisons}
    return [_verdict(claim, by_name[claim.case]) for claim in claims if claim.case in by_name]


def _verdict(claim: Claim, comparison: Comparison) -> Verdict:
    ours, others = (comparison.samples.get(name) for name in (claim.candidate, claim.other))
    if ours is None or others is None:
        return Verdict(claim, None, None)
    rounds = [(own[claim.metric], other[claim.metric]) for own, other in zip(ours, others, strict=True)]
    ratio = statistics.median(own / other if other else math.nan for own, other in rounds)
    enough = claim.at_least is None or ratio >= claim.at_least
    return Verdict(claim, ratio, enough and (claim.at_most is None or ratio <= claim.at_most))

"""What benchmarks claim, judged."""

from __future__ import annotations

import pytest

from benchmarks.claims import Claim, judge
from benchmarks.report import as_verdicts
from benchmarks.runner import Comparison


def compared(**rates: list[float]) -> Comparison:
    samples = {name: [{"requests/s": rate} for rate in of_it] for name, of_it in rates.items()}
    return Comparison("Reads", 3, {}, samples)  # type: ignore[arg-type]


def claim(at_least: float | None = None, at_most: float | None = None, other: str = "peer") -> Claim:
    return Claim("Reads", "requests/s", "ours", other, at_least, at_most)


@pytest.mark.parametrize(
    ("claimed", "holds"),
    [
        (claim(at_least=2), True),
        (claim(at_least=2.1), False),
        (claim(at_most=2), True),
        (claim(at_most=1.9), False),
    ],
)
def test_the_median_of_the_ratios_of_the_rounds_decides(claimed: Claim, holds: bool):
    # Of the medians it would be 1.5.
    figures = compared(ours=[10, 60, 30], peer=[5, 30, 20])
    [verdict] = judge([claimed], [figures])
    assert (verdict.ratio, verdict.holds) == (2, holds)


def test_a_peer_that_was_not_there_is_not_judged():
    [verdict] = judge([claim(at_least=2, other="absent")], [compared(ours=[1])])
    assert (verdict.ratio, verdict.holds) == (None, None)
    assert "not measured" in as_verdicts([verdict])


def test_a_case_that_was_not_run_is_left_out():
    assert judge([claim(at_least=2)], []) == []
    assert as_verdicts([]) == ""


def test_a_claim_reads_as_a_sentence():
    text = as_verdicts(judge([claim(at_least=2)], [compared(ours=[1], peer=[4])]))
    assert "Reads, requests/s: ours ≥ 2 × peer" in text
    assert "**does not hold**" in text

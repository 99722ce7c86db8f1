"""The benchmark of speed paths finds all of them in diptych, and tells what each gains."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks.runner import Comparison
from benchmarks.speed_paths import STAGES, summary
from benchmarks.speed_paths.paths import PATHS, SpeedPath
from benchmarks.trees import THIS


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_the_code_of_a_path_is_found(path: SpeedPath):
    assert (THIS.folder / "src" / "diptych" / path.file).is_file()
    assert path.lines >= 0


def test_all_paths_can_be_switched_off():
    code = (
        "from benchmarks.speed_paths.paths import PATHS, switch_off; switch_off(path.name for path in PATHS)"
    )
    subprocess.run([sys.executable, "-c", code], env=THIS.environment(), check=True)


def test_every_path_is_measured():
    measured = {name for stage in STAGES for scenario in stage.scenarios for name in scenario.paths}
    assert measured == {path.name for path in PATHS}


def test_the_summary_tells_the_gain_of_each_round():
    rates = {
        "as it is": [100, 200, 300],
        "without nothing": [100, 200, 300],
        "without inline reads": [50, 50, 300],
    }
    samples = {name: [{"a second": rate} for rate in own] for name, own in rates.items()}
    case = "SQLite: queries for a book, 32 at once"
    samples["without keys of one form"] = samples["as it is"]
    rows = summary([Comparison(case, 3, {}, samples)]).splitlines()  # type: ignore[arg-type]
    (row,) = (line for line in rows if line.startswith("| inline reads "))
    assert [cell.strip() for cell in row.split("|")[4:-1]] == [case, "2 [1.50 … 3]", "2"]
    (row,) = (line for line in rows if line.startswith("| keys of one form "))
    assert row.split("|")[-2].strip() == "**1**"

"""The house stays as ARCHITECTURE.md draws it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[2]


def test_imports_point_one_way():
    """The contracts are in pyproject.toml; write and read never meet, and each library has its room."""
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "7 kept, 0 broken" in done.stdout


def test_the_sql_route_of_a_list_stands_on_few_files():
    """A reader of the answer from SQL need not read the fence, the log or the hinge."""
    graph = grimp.build_graph("diptych", exclude_type_checking_imports=True)
    route = "diptych.read.sql.rows"
    files = {route, *graph.find_upstream_modules(route)} - {"diptych"}
    assert len(files) <= 25, sorted(files)
    rooms = {name.split(".")[1] for name in files}
    assert rooms.isdisjoint({"fence", "log", "write", "hinge", "redis"}), sorted(files)

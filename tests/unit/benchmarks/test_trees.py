"""The benchmarks compare two revisions: each process runs its own, and both do the same."""

from __future__ import annotations

import ast
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.report import as_summary
from benchmarks.runner import Candidate, Case, Sample, compare
from benchmarks.trees import THIS, other_packages, taken
from benchmarks.workers import Processes, Worker, working
from tests.acceptance.serving import ROOT

JOBS = sorted((ROOT / "benchmarks" / "jobs").glob("*.py"))


@pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="missing component: a repository, not its files alone"
)
async def test_a_process_of_a_revision_runs_what_the_revision_has(tmp_path: Path):
    with taken("HEAD") as compared:
        for tree in compared.trees:
            file = tmp_path / f"{tree.name}.db"
            async with working(tree, "seed") as worker:  # which looks at where its diptych lies
                await worker.ask("seed", database=str(file), count=3)
            assert sqlite3.connect(file).execute("SELECT count(*) FROM books").fetchone() == (3,)
    assert compared.trees[0].folder != compared.trees[1].folder == ROOT


@pytest.mark.parametrize(
    ("module", "package"), [("not_there", "not-there==2.1"), ("nowhere.at.all", "not-there==2.1")]
)
def test_a_revision_that_imports_what_is_not_installed_is_refused_with_the_remedy(
    tmp_path: Path, module: str, package: str
):
    files = {
        "demo_app/__init__.py": "",
        "demo_app/app.py": f"import msgspec, {module}\n",
        "src/diptych/__init__.py": "",
        "requirements/run.lock": f"{package} \\\n    --hash=sha256:12\nmsgspec==0.20.0 \\\n",
        "pyproject.toml": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    for arguments in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "A revision")):
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True)
    with pytest.raises(SystemExit) as refused, taken("HEAD", tmp_path):
        pass
    first = module.partition(".")[0]
    assert f"which is HEAD, imports {first}, which is not installed here" in str(refused.value)
    assert str(refused.value).endswith(f"{sys.executable} -m pip install {package}")


def test_a_process_that_runs_another_tree_is_noticed(tmp_path: Path):
    with pytest.raises(AssertionError, match="which is not in it"):
        THIS.check(str(tmp_path / "src" / "diptych" / "__init__.py"))


async def test_processes_begin_anew_and_are_warm_when_they_are_measured():
    asked: list[Worker] = []

    async def order(workers: Sequence[Worker]) -> Sample:
        asked.extend(workers)
        return {"asked": len(asked)}

    async with Processes(THIS, "seed") as processes:
        measure = processes.measured(2, order)
        measured = [(await measure())["asked"] for _ in range(3)]
    first, second = dict.fromkeys(asked)
    assert asked == [first, first, first, second, second]
    assert measured == [2, 3, 5]


def test_packages_that_a_revision_pins_otherwise_are_told():
    lock = "# made by uv\nredis==7.1.0 \\\n    --hash=sha256:12\n    # via x==1\nmsgspec==0.20.0 \\\n"
    assert other_packages(lock, lock) == ""
    told = other_packages(lock, lock.replace("7.1.0", "7.2.0").replace("msgspec", "orjson"))
    assert (
        told == "msgspec 0.20.0 (here not at all), orjson not at all (here 0.20.0), redis 7.1.0 (here 7.2.0)"
    )


async def test_the_summary_tells_every_metric_of_every_case():
    def giving(**sample: float) -> Candidate:
        async def measure() -> Sample:
            return sample

        return measure

    one = Case("One", 1, {"old": giving(ms=4, rate=1), "new": giving(ms=2, rate=3)})
    two = Case("Two", 1, {"old": giving(ms=2), "new": giving(ms=2)})
    summary = as_summary([await compare(one), await compare(two)])
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in summary.splitlines() if "|" in line]
    assert rows[0] == ["ratio", "ms", "rate"]
    assert rows[2:] == [["One: new / old", "0.500", "3"], ["Two: new / old", "1", "–"]]


def test_what_runs_in_another_revision_uses_public_names_alone():
    files, inner = list(JOBS), set()
    for file in files:
        for module in imported(file):
            if module.startswith(("diptych.", "tests")):
                inner.add((file.name, module))
            if module.startswith("benchmarks.") and (found := file_of(module)) not in files:
                files.append(found)
    assert inner == set()
    assert ROOT / "benchmarks" / "books.py" in files


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def file_of(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")

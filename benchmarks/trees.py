"""The trees that are compared with ``--against``: this checkout, and a revision of it that is taken beside it.

Of the revision diptych and the demonstration are taken. The benchmarks are this checkout's for both: what runs in a
process of a tree (``benchmarks.jobs``) may only use what the revision has, too: public names, and the demonstration.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.serving import ROOT, environment

_TAKEN = ("src", "demo_app", "requirements", "pyproject.toml")


_TRIAL = """
try:
    import demo_app.app
except ModuleNotFoundError as error:
    print(error.name)
"""


class Tree(NamedTuple):
    """What is run: the folder that holds ``src`` and ``demo_app``."""

    name: str
    folder: Path

    def environment(self, **variables: str) -> dict[str, str]:
        """That of a process of this tree: its modules come before those that are installed, and nothing decides but
        ``variables``.
        """
        path = os.pathsep.join(map(str, (self.folder / "src", self.folder, ROOT)))
        return {**environment(**variables), "PYTHONPATH": path}

    def diptych(self) -> list[str]:
        """Its command ``diptych``, wherever in the tree that is written."""
        project = tomllib.loads((self.folder / "pyproject.toml").read_text())["project"]
        module, _, function = project["scripts"]["diptych"].partition(":")
        return [sys.executable, "-c", f"import sys, {module}; sys.exit({module}.{function}())"]

    def check(self, *files: str) -> None:
        """A process of this tree has loaded these files: they have to be the tree's."""
        for file in files:
            assert Path(file).is_relative_to(self.folder), f"{self.name} runs {file}, which is not in it"

    def missing(self) -> str | None:
        """The module that the tree imports and that is not installed, if there is one."""
        tried = subprocess.run(
            [sys.executable, "-c", _TRIAL],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=self.environment(),
            check=False,  # another error is told by whatever runs into it
        )
        return tried.stdout.strip() or None

    def lock(self) -> str:
        """What its lock file pins."""
        return (self.folder / "requirements" / "run.lock").read_text()


THIS = Tree("this tree", ROOT)


class Compared(NamedTuple):
    """A revision, which everything is measured by, and this checkout; ``facts`` say which they are."""

    trees: tuple[Tree, Tree]
    facts: dict[str, str]


@contextlib.contextmanager
def taken(revision: str, repository: Path = ROOT) -> Iterator[Compared]:
    """Takes a revision of the repository into a directory of its own, which goes in the end."""
    try:
        commit = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{revision}^{{commit}}")
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{revision} is no revision: {error.stderr.decode().strip()}") from error
    with tempfile.TemporaryDirectory() as folder:
        archive = _output_of_git(repository, "archive", "--format=tar", commit, *_TAKEN)
        with tarfile.open(fileobj=io.BytesIO(archive)) as files:
            # Python 3.11 has filters from 3.11.4 on.
            files.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
            files.extractall(folder)  # noqa: S202 - the archive is git's own
        other = Tree(commit[:9], Path(folder))
        ours = Tree(THIS.name, repository)
        facts = _facts(revision, commit, other, ours)
        if missing := other.missing():
            raise SystemExit(_told(missing, revision, other))
        yield Compared((other, ours), facts)


def _told(missing: str, revision: str, tree: Tree) -> str:
    """What to do about a module that is missing. The package of a module may have another name."""
    installed = {_normal(found.name) for found in importlib.metadata.distributions()}
    pinned = _pinned(tree.lock())
    named = [name for name in pinned if _normal(name) == _normal(missing.partition(".")[0])]
    asked = named or [name for name in pinned if _normal(name) not in installed]
    packages = " ".join(f"{name}=={pinned[name]}" for name in asked) or missing
    return (
        f"{tree.name}, which is {revision}, imports {missing}, which is not installed here. Run it with what it asks "
        f"for: {sys.executable} -m pip install {packages}"
    )


def _normal(name: str) -> str:
    return name.lower().replace("_", "-")


def _facts(revision: str, commit: str, other: Tree, ours: Tree) -> dict[str, str]:
    head = _git(ours.folder, "rev-parse", "HEAD")
    changed = _git(ours.folder, "status", "--porcelain", "--", *_TAKEN)
    packages = other_packages(other.lock(), ours.lock())
    if packages:
        print(
            f"! {other.name} asks for {packages}: it runs with what is installed for this tree.", flush=True
        )
    return {
        "Against": f"{other.name}, which is {revision} ({_git(ours.folder, 'log', '-1', '--format=%cs', commit)})",
        "This tree": f"{head[:9]}{', with changes that are not committed' if changed else ''}",
        "Packages for which the two ask differently": packages or "none",
    }


def other_packages(other: str, ours: str) -> str:
    """What one lock file pins otherwise than ours does, in words; empty if both pin the same."""
    theirs, here = _pinned(other), _pinned(ours)
    return ", ".join(
        f"{name} {theirs.get(name, 'not at all')} (here {here.get(name, 'not at all')})"
        for name in sorted(theirs.keys() | here.keys())
        if theirs.get(name) != here.get(name)
    )


def _pinned(lock: str) -> dict[str, str]:
    lines = [
        line.split()[0] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))
    ]
    return dict(line.split("==", 1) for line in lines)


def _git(repository: Path, *arguments: str) -> str:
    return _output_of_git(repository, *arguments).decode().strip()


def _output_of_git(repository: Path, *arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=repository, capture_output=True, check=True).stdout

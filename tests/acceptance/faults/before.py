"""The version before this one, as a process of its own runs it: from the history of this repository."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from functools import cache
from pathlib import Path

from diptych.servers.process import temporary_directory
from tests.acceptance.serving import ROOT, environment

REVISION = "ab7aceb"
"""The last one with layout 1 of what is in Redis."""


@cache
def version_before() -> Path | None:
    """A directory with its ``src`` and ``tests``; None in a clone (or a copy) that does not have the revision."""
    packed = subprocess.run(
        ["git", "archive", "--format=tar", REVISION, "src", "tests"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    if packed.returncode:
        return None
    directory = temporary_directory()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        # Python 3.11 has filters from 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _path: member)
        archive.extractall(directory)  # noqa: S202 - the archive is git's own
    return directory


def its_environment(directory: Path) -> dict[str, str]:
    """That of a process which imports everything from there."""
    return environment(PYTHONPATH=os.pathsep.join([str(directory), str(directory / "src")]))

"""How long the disk takes to keep what it was given: what every durable commit waits for."""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path

from benchmarks.runner import Candidate, Sample

BYTES = 4096
TIMES = 200


def appended(folder: Path) -> Candidate:
    """Appends to a file in ``folder`` and has it written to the disk, again and again."""

    async def measure() -> Sample:
        # A journal is appended to: its length is of what fdatasync has to write, but no time of change.
        sync = getattr(os, "fdatasync", os.fsync)
        took_ms = []
        with (folder / "appended").open("wb", buffering=0) as file:
            for _ in range(TIMES):
                begin = time.perf_counter()
                file.write(bytes(BYTES))
                sync(file.fileno())
                took_ms.append((time.perf_counter() - begin) * 1000)
        return {"median, ms": statistics.median(took_ms), "longest, ms": max(took_ms)}

    return measure

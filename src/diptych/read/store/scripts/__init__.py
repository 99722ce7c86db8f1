"""The scripts that run inside Redis, one operation a file; ``common.lua`` is put before those that need it."""

from __future__ import annotations

from importlib.resources import files


def source(name: str, *, common: bool) -> str:
    """The text of ``<name>.lua``, with the common part before it."""
    return (_text("common") if common else "") + _text(name)


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")

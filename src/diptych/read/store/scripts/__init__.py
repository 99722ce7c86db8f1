"""The scripts inside Redis, each operation in its file; ``common.lua`` holds the parts in common."""

from __future__ import annotations

from importlib.resources import files


def source(name: str, *, common: bool) -> str:
    """Returns the text of ``<name>.lua``, after ``common.lua`` if ``common``."""
    return (_text("common") if common else "") + _text(name)


def _text(name: str) -> str:
    return files(__package__).joinpath(f"{name}.lua").read_text(encoding="utf-8")

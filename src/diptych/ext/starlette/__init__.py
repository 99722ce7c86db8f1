"""Starlette: diptych in an application of Starlette. `diptych.ext.fastapi` goes on here, for FastAPI."""

from __future__ import annotations

from diptych.errors import MissingExtraError

try:
    import starlette  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "starlette":
        raise
    raise MissingExtraError("diptych.ext.starlette", "fastapi", "starlette") from error

from diptych.ext.starlette.endpoints import routes
from diptych.ext.starlette.install import diptych_of, install
from diptych.ext.starlette.problems import respond

__all__ = ["diptych_of", "install", "respond", "routes"]

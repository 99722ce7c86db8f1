"""The catalogue for ``diptych run``, with the speed paths off that are named by the environment."""

from __future__ import annotations

import os

from benchmarks.speed_paths.paths import switch_off

switch_off(filter(None, os.environ["SPEED_PATHS_OFF"].split(",")))

from demo_app.app import app  # noqa: E402 - it is put together by what has been switched off

__all__ = ["app"]

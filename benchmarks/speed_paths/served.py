"""The catalogue as ``diptych run`` serves it, with the speed paths off that the environment names."""

from __future__ import annotations

import os

from benchmarks.speed_paths.paths import switch_off

switch_off(filter(None, os.environ["SPEED_PATHS_OFF"].split(",")))

from demo_app.app import app  # noqa: E402 - it is put together by what has been switched off

__all__ = ["app"]

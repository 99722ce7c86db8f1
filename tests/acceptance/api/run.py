"""Runs of Schemathesis against a served application."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 3600
# Without `ensure_resource_availability`, which takes an `id` in an answer for that of what was created: an added
# review is answered with its book. `shows_what_was_done` asks for the `Location` of each creation.
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "use_after_free",
    "shows_what_was_done",
)


class Run(NamedTuple):
    """What a run has found: the number of its requests, whether all was well, and what Schemathesis wrote."""

    requests: int
    is_well: bool
    report: str


def run(url: str, *, seed: int, examples: int, phases: str) -> Run:
    """Tries the application at ``url``, with so many ``examples`` for each operation and phase."""
    with tempfile.TemporaryDirectory() as directory:
        count = Path(directory) / "requests"
        count.touch()
        command = [
            *(str(Path(sys.executable).with_name("schemathesis")), "--config-file", os.devnull, "run"),
            *("--url", url, "--checks", ",".join(CHECKS), "--phases", phases),
            *("--max-examples", str(examples), "--seed", str(seed), "--workers", "1"),
            *("--generation-database", "none", "--continue-on-failure", "--no-color", "--warnings", "off"),
            *("--suppress-health-check", "all", "--no-shrink", "--request-timeout", "120"),
            f"{url}/openapi.json",
        ]
        ours = {name: value for name, value in os.environ.items() if not name.startswith("SCHEMATHESIS_")}
        hooks = {"SCHEMATHESIS_HOOKS": "tests.acceptance.api.hooks", "API_REQUESTS": str(count)}
        done = subprocess.run(
            command,
            cwd=directory,  # where it leaves its cache
            env={**ours, **hooks, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        return Run(count.stat().st_size, done.returncode == 0, done.stdout)

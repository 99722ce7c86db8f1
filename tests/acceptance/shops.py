"""The example applications as they are served, each by one of three servers."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import httpx

from tests.acceptance.serving import ROOT, environment
from tests.servers import HOST, Server, ServerFailedError

FRAMEWORKS = ("fastapi", "litestar")
SERVERS = ("diptych run", "uvicorn", "granian")


def migrate(database_url: str, *command: str) -> str:
    """Runs Alembic, by default to the newest revision, as the README says; returns what it writes."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "alembic",
            "-c",
            "examples/shop/alembic.ini",
            *(command or ("upgrade", "head")),
        ],
        cwd=ROOT,
        env=environment(DIPTYCH_DATABASE_URL=database_url),
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class ShopServer(Server):
    """The application of a framework, behind a server, with settings of diptych."""

    ready_line = ""

    def __init__(self, framework: str, server: str, settings: Mapping[str, str], *, workers: int) -> None:
        super().__init__()
        self.application = f"examples.{framework}_shop.app:app"
        self.server, self.workers = server, str(workers)
        self.settings = {"CREATE_TABLES": "false", "REDIS_QUERY_TIMEOUT_MS": "2000", **settings}

    @property
    def url(self) -> str:
        """Where clients go."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """As the READMEs of the examples say."""
        module = {
            "diptych run": ("diptych.cli", "run"),
            "uvicorn": ("uvicorn",),
            "granian": ("granian", "--interface", "asgi"),
        }[self.server]
        options = ("--host", HOST, "--port", str(self.port), "--workers", self.workers)
        return [sys.executable, "-m", *module, *options, self.application]

    def run_as(self) -> dict[str, Any]:
        """In the root of the repository; nothing of the environment but what is said here decides."""
        return {"env": environment(**{f"DIPTYCH_{name}": value for name, value in self.settings.items()})}

    def _await_ready(self, log_begin: int) -> None:
        deadline = time.monotonic() + 60
        while not self._answers():
            if not self.running or time.monotonic() > deadline:
                raise ServerFailedError(f"{self.server} did not start:\n{self.log()[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/products", timeout=30).status_code == 200
        except httpx.TransportError:
            return False

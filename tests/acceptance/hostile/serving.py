"""The catalogue as it is served to hostile clients: with short limits of time, and with few file descriptors."""

from __future__ import annotations

from tests.acceptance.serving import CatalogueServer

LIMIT_S = 2.0
"""The limit of time for heads and bodies, in seconds."""

FILES = 256
"""File descriptors of a process at its limit: a tenth of the connections that come together."""


class LimitedServer(CatalogueServer):
    """The catalogue in processes that may have few files open."""

    def command(self) -> list[str]:
        return ["sh", "-c", f'ulimit -n {FILES} && exec "$@"', "sh", *super().command()]


def plenty(workers: int) -> CatalogueServer:
    """Returns a server with as many file descriptors as it wants."""
    return CatalogueServer(workers=workers, **_times())


def at_limit(workers: int) -> CatalogueServer:
    """Returns a server with few file descriptors."""
    return LimitedServer(workers=workers, **_times())


def _times() -> dict[str, str]:
    limit_ms = str(round(LIMIT_S * 1000))
    return {"HEAD_TIMEOUT_MS": limit_ms, "BODY_TIMEOUT_MS": limit_ms}

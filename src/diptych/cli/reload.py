"""``--reload``: the workers start anew when a file of the application's source is changed."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, ClassVar

from diptych.errors import MissingExtraError

try:
    from watchfiles import PythonFilter
except ModuleNotFoundError as error:
    raise MissingExtraError("--reload", "cli", error.name or "watchfiles") from None

if TYPE_CHECKING:
    from granian.server.common import AbstractServer
    from watchfiles import Change

_log = logging.getLogger("diptych.server")


class Sources(PythonFilter):
    """Files of Python, and of settings in TOML; not those of the database, which every command changes."""

    changed: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        super().__init__(extra_extensions=(".toml",))

    def __call__(self, change: Change, path: str) -> bool:
        """Returns whether this change is a reason to start the workers anew."""
        is_source = super().__call__(change, path)
        if is_source:
            self.changed.add(path)
        return is_source


def tell_reloads(server: AbstractServer[Any]) -> None:
    """Has the server write a line before it starts the workers anew."""

    def tell() -> None:
        _log.info("changed: %s; the workers start anew", ", ".join(sorted(Sources.changed)))
        Sources.changed.clear()

    server.on_reload(tell)

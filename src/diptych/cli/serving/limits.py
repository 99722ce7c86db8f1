"""The limit of connections of a process: as many as asked for, if the system gives it the file descriptors."""

from __future__ import annotations

import contextlib
import resource

from diptych.config.settings import Settings

_FEWEST = 16
_OTHERS = 100  # file descriptors for all but connections and the databases: libraries, logs, static files


def most_connections(settings: Settings) -> int:
    """Raises the limit of file descriptors as far as needed, and returns the greatest number of connections.

    The limit holds for this process and those that it starts.
    """
    # SQLite has three files open for each connection of its pools.
    others = _OTHERS + 3 * settings.database_pool_size
    files = _raised_to(settings.max_connections + others)
    return max(_FEWEST, min(settings.max_connections, files - others))


def _raised_to(wanted: int) -> int:
    """Returns the limit of file descriptors, which is raised to ``wanted`` if the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return wanted
    highest = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS has a further limit, which it does not tell
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]

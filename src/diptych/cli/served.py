"""The address served, and the Redis in use: the first worker that is ready tells them, the parent announces them."""

from __future__ import annotations

import json
import logging
import os
from typing import NamedTuple

from diptych.config.urls import mask

_MOST_TOLD = 10
"""Number of addresses of Redis that a worker tells; a pipe takes no text of any length at once."""

_log = logging.getLogger("diptych.server")


class Serving(NamedTuple):
    """Facts about a server: its target and URL, and the number of workers.

    ``redis`` is the Redis that the application uses: "embedded", "none" or a URL (passwords masked); None if no
    ``Diptych`` was started with the first worker, so that nobody knows. ``asked`` is what was asked for by
    ``redis=`` or ``--redis``, if anything was.
    """

    target: str
    url: str
    workers: int
    redis: str | None
    asked: str | None


def print_serving(serving: Serving) -> None:
    """Prints the target and its URL, and how to stop the server."""
    print(f"{_line(serving)}; Ctrl+C stops it.", flush=True)


def log_serving(serving: Serving) -> None:
    """Logs the target and its URL."""
    _log.info("%s", _line(serving), extra=serving._asdict())


def _line(serving: Serving) -> str:
    details = [f"{serving.workers} worker{'s' if serving.workers > 1 else ''}"]
    if serving.redis is not None:
        details.append({"embedded": "embedded Valkey", "none": "no Redis"}.get(serving.redis, serving.redis))
    elif serving.asked is not None:
        named = "leads to an embedded Valkey" if serving.asked == "embedded" else f"is {serving.asked}"
        details.append(f"DIPTYCH_REDIS_URL {named}")
    return f"Serving {serving.target} at {serving.url} ({', '.join(details)})"


class _InUse(NamedTuple):
    """The Redis of a ``Diptych``, and the layer of its REDIS_URL.

    ``is_as_told`` is True if DIPTYCH_REDIS_URL, by which ``--redis`` tells the workers, says the same.
    """

    url: str
    layer: str
    is_as_told: bool


def redis_in_use() -> str:
    """Returns the Redis of each ``Diptych`` that is started in this process, as JSON for ``with_redis``."""
    from diptych.app import STARTED

    told = os.environ.get("DIPTYCH_REDIS_URL", "none")
    uses = set()
    for config in (diptych.config for diptych in STARTED):
        url = config.settings.redis_url or "none"
        uses.add(_InUse(mask(url), config.layer_of("REDIS_URL") or "", url == told))
    return json.dumps([each._asdict() for each in sorted(uses)[:_MOST_TOLD]])


def with_redis(serving: Serving, told: str | bytes) -> Serving:
    """Returns the facts with what a worker tells of Redis. Warns if that is not what was asked for."""
    uses = [_InUse(**each) for each in json.loads(told)]
    if serving.asked is None:
        return serving._replace(redis=" and ".join(each.url for each in uses) or None)
    for other in (each for each in uses if not each.is_as_told):
        _log.warning(
            "--redis %s is not what %s uses: a ConfigService of the application has the REDIS_URL %s (%s). Leave it "
            "out there, or leave --redis out",
            *(serving.asked, serving.target, other.url, other.layer),
        )
    found = dict.fromkeys(serving.asked if each.is_as_told else each.url for each in uses)
    return serving._replace(redis=" and ".join(found) or None)

"""The requests that are in the application, as the guards note them and the watch of the connections reads them."""

from __future__ import annotations

import math
from typing import NamedTuple

from diptych.cli.serving.sockets import Client

IN_APPLICATION = math.inf
"""A request that does not wait for its body, in place of the time since when it does."""


class UnderWay(NamedTuple):
    """The requests in the application, each under the `id` of its scope: an object for each would cost more.

    ``clients`` has the client of each, ``waits_since`` since when the application waits for a body, by the monotonic
    clock. A client may have several: the application may have work to do after an answer, and the next request of the
    connection comes meanwhile; with HTTP/2 they come side by side. The event loop changes both while the watch reads.
    """

    clients: dict[int, Client]
    waits_since: dict[int, float]

    def by_client(self) -> dict[Client, float]:
        """Returns since when each client's request waits for its body; of several, the one that came last to it."""
        found: dict[Client, float] = {}
        for request, client in self.clients.copy().items():
            since = self.waits_since.get(request, IN_APPLICATION)
            found[client] = max(since, found.get(client, 0.0))
        return found

"""The parameters of queries."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from demo_app.controllers.responses import WebRequest
from diptych import Fault, InvalidMessage, build

S = TypeVar("S", bound=msgspec.Struct)


def sent_parameters(request: WebRequest) -> list[tuple[str, str]]:
    """Returns the parameters of the query string; empty ones count as absent."""
    return [(name, value) for name, value in request.query_params.multi_items() if value]


def query_of(kind: type[S], sent: Sequence[tuple[str, str]]) -> S:
    """Returns the query of these parameters. Raises `InvalidMessage` for faulty and for repeated ones."""
    counted = Counter(name for name, _ in sent)
    repeated = [Fault(name, "was sent more than once") for name, count in counted.items() if count > 1]
    if repeated:
        raise InvalidMessage(kind.__name__, repeated)
    return build(kind, dict(sent), text=True)

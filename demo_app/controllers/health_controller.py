"""The state of the stores, for load balancers and for people in search of a fault."""

from __future__ import annotations

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency

from diptych import Diptych


@get("/health")
async def health(diptych: NamedDependency[Diptych]) -> Response[bytes]:
    """Answers with the state of SQL, Redis and the read model; 503 if SQL is away."""
    state = await diptych.health()
    headers = {"Cache-Control": "no-store"}
    if state.status != "ok":
        headers["Retry-After"] = "1"
    return Response(
        msgspec.json.encode(state),
        status_code=200 if state.status == "ok" else 503,
        headers=headers,
        media_type="application/json",
    )

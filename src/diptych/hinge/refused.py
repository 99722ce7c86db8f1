"""Refusals by Redis of writes by passes and builders."""

from __future__ import annotations

from collections.abc import Awaitable

from diptych.errors import DiptychError

REASONS = {"ELSEWHERE": "other-server", "FOREIGN": "other-database"}
"""Reasons for answers from SQL after a refusal; of any other outcome: the data are lost."""

UNUSABLE = frozenset({"AHEAD", "UNREADABLE", "BEHIND"})
"""Refusals of a pass after which its generation has to be built anew, although it is there."""


class Refused(DiptychError):
    """A refusal: Redis is not, or no longer, in the state for a pass or a builder to write to.

    ``outcome`` is the script's answer, such as ``GONE`` (see ``RedisStore``), or the keeper's own finding: ``AHEAD``
    (Redis was brought to a later state of SQL than there is now) or ``UNREADABLE`` (an entry of the log lacks the
    columns of a document).
    """

    def __init__(self, outcome: str) -> None:
        super().__init__(f"Redis refused: {outcome}")
        self.outcome = outcome


async def accepted(writing: Awaitable[str]) -> None:
    """Awaits a script. Raises ``Refused`` for any outcome but ``OK``."""
    outcome = await writing
    if outcome != "OK":
        raise Refused(outcome)

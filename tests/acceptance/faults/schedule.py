"""Which faults there are, and random sequences of them. The faults themselves are in ``stories``."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tests.acceptance.faults.checker import Anomaly
from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.history import ITEM, now
from tests.faults import Fault
from tests.servers import libfaketime

Story = Callable[[Cluster, random.Random], Awaitable[None]]


class FaultKind(NamedTuple):
    """A story and what it needs: ``touches`` says what two stories at once must not share."""

    name: Fault
    story: Story
    touches: frozenset[str]
    sqlite: bool
    postgresql: bool
    needs_clock: bool

    def fits(self, cluster: Cluster) -> bool:
        """Whether it can happen on this database, with what is installed here."""
        is_here = libfaketime() is not None or not self.needs_clock
        is_here &= cluster.program is not None or "program" not in self.touches
        return is_here and (self.postgresql if cluster.on_postgres else self.sqlite)


FAULTS: dict[Fault, FaultKind] = {}


def fault(
    name: Fault, *touches: str, sqlite: bool = True, postgresql: bool = True, needs_clock: bool = False
) -> Callable[[Story], Story]:
    """Puts a story into ``FAULTS``."""

    def put(story: Story) -> Story:
        FAULTS[name] = FaultKind(name, story, frozenset(touches), sqlite, postgresql, needs_clock)
        return story

    return put


async def happen(cluster: Cluster, name: Fault, chance: random.Random | None = None) -> None:
    """Has one fault happen, recorded, and undone."""
    async with cluster.fault(name):
        try:
            await FAULTS[name].story(cluster, chance or cluster.chance)
        except AssertionError as error:
            cluster.problems.append(
                Anomaly("a fault did not go as planned", ITEM, "", now(), f"{name}: {error}")
            )


async def happen_all(
    cluster: Cluster, names: list[Fault], *, until: float = float("inf"), overlapping: float = 0.2
) -> bool:
    """One after the other, Redis answering in between; now and then two that do not touch the same at once.

    Returns False if the time ``until`` came before the last.
    """
    waiting = list(names)
    while waiting:
        if time.monotonic() > until:
            return False
        chosen = [waiting.pop(0)]
        if cluster.chance.random() < overlapping:
            chosen += _beside(chosen[0], waiting)
        # Each has a chance of its own: what two draw at once would depend on who comes first.
        chances = [random.Random(cluster.chance.random()) for _ in chosen]
        await asyncio.gather(
            *(happen(cluster, name, chance) for name, chance in zip(chosen, chances, strict=True))
        )
        await cluster.recovered(" and ".join(chosen))
    return True


def _beside(name: Fault, waiting: list[Fault]) -> list[Fault]:
    for n, other in enumerate(waiting):
        if not FAULTS[name].touches & FAULTS[other].touches:
            return [waiting.pop(n)]
    return []

"""Exploration: breadth first, which finds shortest traces, and seeded random walks, which get deep."""

import random
import re
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

# Walks take less often what is always possible, or ends much: they would use up their budgets at once.
RARE = re.compile("killed|FLUSHALL|restarts|promoted|replica|plans")
SELDOM = re.compile("ticks|gives up|cannot reach|arrives|copied|promises|query")

S = TypeVar("S", bound=Hashable)


@dataclass(frozen=True)
class Machine(Generic[S]):
    """A model within its bounds: where it starts, what can happen next, and what is wrong with a state.

    `prefix` are the beginnings of the labels of steps that are taken before anything is explored.
    """

    first: S
    steps: Callable[[S], Iterator[tuple[str, S]]]
    wrong: Callable[[S], str]
    prefix: tuple[str, ...] = ()


class Violation(NamedTuple):
    """A state in which a query is served what it must not be, and how it was reached."""

    what: str
    story: tuple[str, ...]
    states: int

    def __str__(self) -> str:
        lines = [f"{n:3}. {line}" for n, line in enumerate((*self.story, self.what), 1)]
        return "\n".join(lines)


class Explored(NamedTuple):
    """How far an exploration got: `complete` when every state within the bounds was seen."""

    states: int
    complete: bool
    violation: Violation | None


def beginning(machine: Machine[S]) -> tuple[S, list[str]]:
    """The first state, or the one to which the prefix leads, and how."""
    state, story = machine.first, list[str]()
    for wanted in machine.prefix:
        label, state = next(step for step in machine.steps(state) if step[0].startswith(wanted))
        story.append(label)
    return state, story


def breadth_first(machine: Machine[S], most: int = 10_000_000) -> Explored:
    """Every state within the bounds, nearest first. Seen states are kept as 64-bit hashes, to fit in memory."""
    start, _ = beginning(machine)
    parents: dict[int, int] = {hash(start): 0}
    layer = [start]
    while layer:
        following: list[S] = []
        for state in layer:
            above = hash(state)
            for label, after in machine.steps(state):
                name = hash(after)
                if name in parents:
                    continue
                parents[name] = above
                if what := machine.wrong(after):
                    story = _story(machine, parents, above)
                    return Explored(len(parents), False, Violation(what, (*story, label), len(parents)))
                following.append(after)
            if len(parents) > most:
                return Explored(len(parents), False, None)
        layer = following
    return Explored(len(parents), True, None)


def _story(machine: Machine[S], parents: dict[int, int], last: int) -> list[str]:
    """The labels on the way to a state, found again from the hashes."""
    path = [last]
    while parents[path[-1]]:
        path.append(parents[path[-1]])
    state, story = beginning(machine)
    for name in reversed(path[:-1]):
        label, state = next((label, after) for label, after in machine.steps(state) if hash(after) == name)
        story.append(label)
    return story


def walk(machine: Machine[S], seed: int, length: int = 120) -> tuple[S, Explored]:
    """One random walk; the last state too."""
    chance = random.Random(seed)
    state, story = beginning(machine)
    for n in range(length):
        choices = list(machine.steps(state))
        if len(choices) == 1:
            return state, Explored(n, False, None)  # only the clocks go on
        weights = [1 if RARE.search(label) else 6 if SELDOM.search(label) else 30 for label, _ in choices]
        [(label, state)] = chance.choices(choices, weights)
        story.append(label)
        if what := machine.wrong(state):
            return state, Explored(n + 1, False, Violation(what, tuple(story), n + 1))
    return state, Explored(length, False, None)

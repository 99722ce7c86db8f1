"""Exploration: breadth first, which finds shortest traces, and seeded random walks, which get deep."""

import random
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.model import command, faults, keeper, query
from tests.model.config import Config, first_state
from tests.model.state import State, Step

# Walks take less often what is always possible, or ends much: they would use up their budgets at once.
RARE = re.compile("killed|FLUSHALL|restarts|promoted|replica|plans")
SELDOM = re.compile("ticks|gives up|cannot reach|arrives|copied|promises|query")


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


def steps(state: State, config: Config) -> Iterator[Step]:
    """All that can happen next."""
    yield from command.steps(state, config)
    yield from keeper.steps(state, config)
    if config.queries:
        yield from query.steps(state, config)
    yield from faults.steps(state, config)


def beginning(config: Config) -> tuple[State, list[str]]:
    """The first state, or the one to which the configuration's prefix leads, and how."""
    state, story = first_state(config), list[str]()
    for wanted in config.prefix:
        label, state = next(step for step in steps(state, config) if step[0].startswith(wanted))
        story.append(label)
    return state, story


def breadth_first(config: Config, most: int = 10_000_000) -> Explored:
    """Every state within the bounds, nearest first. Seen states are kept as 64-bit hashes, to fit in memory."""
    start, _ = beginning(config)
    parents: dict[int, int] = {hash(start): 0}
    layer = [start]
    while layer:
        following: list[State] = []
        for state in layer:
            above = hash(state)
            for label, after in steps(state, config):
                name = hash(after)
                if name in parents:
                    continue
                parents[name] = above
                if what := query.wrong(after, config):
                    story = _story(config, parents, above)
                    return Explored(len(parents), False, Violation(what, (*story, label), len(parents)))
                following.append(after)
            if len(parents) > most:
                return Explored(len(parents), False, None)
        layer = following
    return Explored(len(parents), True, None)


def _story(config: Config, parents: dict[int, int], last: int) -> list[str]:
    """The labels on the way to a state, found again from the hashes."""
    path = [last]
    while parents[path[-1]]:
        path.append(parents[path[-1]])
    state, story = beginning(config)
    for name in reversed(path[:-1]):
        label, state = next((label, after) for label, after in steps(state, config) if hash(after) == name)
        story.append(label)
    return story


def walk(config: Config, seed: int, length: int = 120) -> tuple[State, Explored]:
    """One random walk; the last state too."""
    chance = random.Random(seed)
    state, story = beginning(config)
    for n in range(length):
        choices = list(steps(state, config))
        if len(choices) == 1:
            return state, Explored(n, False, None)  # only the clocks go on
        weights = [1 if RARE.search(label) else 6 if SELDOM.search(label) else 30 for label, _ in choices]
        [(label, state)] = chance.choices(choices, weights)
        story.append(label)
        if what := query.wrong(state, config):
            return state, Explored(n + 1, False, Violation(what, tuple(story), n + 1))
    return state, Explored(length, False, None)

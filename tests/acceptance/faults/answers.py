"""What a command tells its caller of the state that it has found."""

from __future__ import annotations

from typing import NamedTuple

from tests.acceptance.faults.history import Saw


class Answer(NamedTuple):
    """Whether a command has changed anything, and what it tells of the state that it has found."""

    changed: bool
    saw: list[Saw]


class TakenError(Exception):
    """What ``ClaimItem`` fails with, if somebody is there."""

    def __init__(self, saw: Saw) -> None:
        super().__init__(f"{saw.key} is taken")
        self.saw = saw

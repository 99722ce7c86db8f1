"""The commands that processes send, by names and keys; and what their answers tell."""

from __future__ import annotations

from typing import Any

import msgspec

from diptych import Command, DuplicateError
from tests.acceptance.faults import application as app
from tests.acceptance.faults.answers import Answer, TakenError
from tests.acceptance.faults.beside import statements as beside
from tests.acceptance.faults.history import ITEM, OPEN_ITEM, OWNER_OF, Saw
from tests.acceptance.faults.open_items import WAYS, ChangeOpen, keys_of_owners

OWNERS = 3
"""How many owners there are, numbered from 1."""

KINDS = (
    "add",
    "change",
    "delete",
    "re-create",
    "rename",
    "change several",
    "change nothing",
    "rename owner",
    "look",
    "look at owner",
    "claim",
    *WAYS,
)

MIX = (16, 30, 12, 10, 5, 8, 4, 8, 3, 1, 3, *[4] * len(WAYS))
"""How often each of ``KINDS`` is sent. Those after the first eight tell what they have found; those of ``WAYS``
change open items. A shorter mix has none of them."""

MIX_BEFORE = MIX[:8]
"""The same for processes of the version before, who know the first eight."""


class Step(msgspec.Struct, frozen=True, array_like=True):
    """A command: write number ``write``, of some kind, on these keys (of items, or one of an owner).

    ``former`` is the write that a "retry" repeats; ``audit`` has a command that looks write down what it has found.
    """

    kind: str
    keys: list[str]
    write: int
    former: int = 0
    audit: bool = False

    @property
    def items(self) -> str:
        """The entity of the items that this is about, or whose owners."""
        return OPEN_ITEM if self.kind in WAYS else ITEM

    @property
    def is_of_owners(self) -> bool:
        """Whether the keys are those of owners."""
        return keys_of_owners(self.kind)

    @property
    def entity(self) -> str:
        """The entity that has the keys."""
        return OWNER_OF[self.items] if self.is_of_owners else self.items

    @property
    def owner(self) -> int:
        """The owner that an item is given."""
        if self.keys[0] in beside.KIN:
            return beside.LASTING_OWNER
        return 1 + self.write // 3 % (beside.OWNERS if self.items == OPEN_ITEM else OWNERS)

    def command(self) -> Command[Any]:
        """The message for the bus."""
        key, write, owner = self.keys[0], self.write, self.owner
        if self.kind in WAYS:
            return ChangeOpen(self.kind, self.keys, write, owner)
        match self.kind:
            case "add":
                return app.AddItem(key, write, owner)
            case "change":
                return app.ChangeItem(key, write, owner if write % 3 == 0 else None)
            case "delete":
                return app.DeleteItem(key)
            case "re-create":
                return app.RecreateItem(key, write, owner)
            case "rename":
                return app.RenameItem(key, self.keys[1], write)
            case "change several":
                return app.ChangeItems(self.keys, write)
            case "change nothing":
                return app.ChangeNothing(key, write)
            case "spoil":
                return app.ChangeItem(key, -write)
            case "rename owner":
                return app.RenameOwner(int(key), str(write))
            case "look":
                return app.LookAtItem(key, self.audit)
            case "look at owner":
                return app.LookAtOwner(int(key), self.audit)
            case "claim":
                return app.ClaimItem(key, write, owner)
            case "retry":
                return app.ChangeItemOnce(key, self.former, write, self.audit)
        raise ValueError(f"no such kind of command: {self.kind}")

    def told_by(self, answer: bool | Answer) -> tuple[str, list[Saw]]:
        """The outcome, as ``End`` has it, and what this answer tells of what was found."""
        if isinstance(answer, Answer):
            return ("done" if answer.changed else "nothing"), answer.saw
        if answer or self.kind == "rename owner":
            return ("done" if answer else "nothing"), []
        # What it was to change was not there.
        keys = self.keys if self.kind == "change several" else self.keys[:1]
        return "nothing", [Saw(ITEM, key) for key in keys]

    def told_by_error(self, error: Exception) -> list[Saw]:
        """What this refusal tells."""
        if isinstance(error, TakenError):
            return [error.saw]
        if isinstance(error, DuplicateError):
            return [Saw(self.entity, self.keys[-1], is_told=False)]
        return []

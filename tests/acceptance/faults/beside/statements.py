"""Statements on open items and their owners, for whoever changes them by text."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from tests.acceptance.faults.history import UNSEEN

HOT = tuple(f"o{n}" for n in range(5))
COLD = tuple(f"p{n:02}" for n in range(12))
KIN = tuple(f"m{n}" for n in range(4))
"""Keys of open items. The last are of those that only stories change."""

OWNERS = 4
"""The greatest number that an owner has whom anybody may remove. Three of the numbers are given at first."""

LASTING_OWNER = 9
"""The number of one whom nobody removes."""

ANY_OWNER = (*range(1, OWNERS + 1), LASTING_OWNER)
"""The numbers that an owner may have."""


def some_key(chance: random.Random) -> str:
    """A key of an open item that anybody may change."""
    return chance.choice(HOT if chance.random() < 0.6 else COLD)


SIGN = "INSERT INTO signatures (write) VALUES (:write)"
"""The statement by which a transaction says whose it is (see ``ledger``)."""

UPSERT = (
    "INSERT INTO open_items (key, value, owner_id) VALUES (:key, :value, :owner) "
    "ON CONFLICT (key) DO UPDATE SET value = excluded.value, owner_id = excluded.owner_id"
)

SWAP = (
    "UPDATE open_items SET key = :between WHERE key = :key",
    "UPDATE open_items SET key = :key WHERE key = :other",
    "UPDATE open_items SET key = :other WHERE key = :between",
)

UPDATE = "UPDATE open_items SET value = :value WHERE key = :key"

CHANGES: Mapping[str, Sequence[str]] = {
    "update": (UPDATE,),
    "update several": ("UPDATE open_items SET value = :value WHERE key IN (:key, :other)",),
    "insert": ("INSERT INTO open_items (key, value, owner_id) VALUES (:key, :value, :owner)",),
    "delete": ("DELETE FROM open_items WHERE key = :key",),
    "delete and insert": (
        "DELETE FROM open_items WHERE key = :key",
        "INSERT INTO open_items (key, value, owner_id) VALUES (:key, :value, :owner)",
    ),
    "upsert": (UPSERT,),
    "rename": ("UPDATE open_items SET key = :other, value = :value WHERE key = :key",),
    "give": ("UPDATE open_items SET owner_id = :owner, value = :value WHERE key = :key",),
    "swap": SWAP,
    "name owner": ("UPDATE open_owners SET name = :name WHERE id = :owner",),
    "number owner": ("UPDATE open_owners SET id = :number WHERE id = :owner",),
    "re-create owner": (
        "DELETE FROM open_owners WHERE id = :owner",
        "INSERT INTO open_owners (id, name) VALUES (:owner, :name)",
    ),
}
"""What a program does all the time, by its names."""

MANY = tuple(f"b{n:03}" for n in range(300))
"""Keys of the items that are added, changed and deleted at once."""

AT_ONCE: Mapping[str, Sequence[str]] = {
    "insert many": ("INSERT INTO open_items (key, value, owner_id) VALUES (:key, :value, :owner)",),
    "update many": ("UPDATE open_items SET value = :value WHERE key LIKE 'b%'",),
    "delete many": ("DELETE FROM open_items WHERE key LIKE 'b%'",),
    "truncate": ("TRUNCATE open_items", UPSERT),
    UNSEEN: (UPSERT,),
}
"""What a program does when a story has it do that. The first is done for each of ``MANY``."""

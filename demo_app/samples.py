"""Sample books: classics in the public domain, each with the day of its first publication where known.

The day is that of the first instalment where a book came out in instalments.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from demo_app.messages import AddBook, ListBooks
from diptych import Diptych, build

_FILE = Path(__file__).with_name("samples.csv")


async def add_samples(catalogue: Diptych) -> int:
    """Adds the sample books if the catalogue has no book yet; returns how many were added."""
    if (await catalogue.ask(ListBooks(limit=1))).decode().items:
        return 0
    commands = list(sample_books())
    for command in commands:
        await catalogue.execute(command)
    return len(commands)


def sample_books() -> Iterator[AddBook]:
    """Returns a command for each sample book."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            yield build(AddBook, {name: value or None for name, value in row.items()}, text=True)

"""Sample books: classics in the public domain, each with the day of its first publication where known.

The day is that of the first instalment where a book came out in instalments. All of them have tags, and some reviews.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from demo_app.messages import AddBook, AddReview, BookTags, ListBooks, NewReview, SetTags
from diptych import Diptych, build

_BOOKS = Path(__file__).with_name("samples.csv")
_REVIEWS = Path(__file__).with_name("sample_reviews.csv")


async def add_samples(catalogue: Diptych) -> int:
    """Adds the sample books if the catalogue has no book yet; returns how many were added."""
    if (await catalogue.ask(ListBooks(limit=1))).decode().items:
        return 0
    books = list(sample_books())
    for command in (*books, *_sample_tags(), *_sample_reviews()):
        await catalogue.execute(command)
    return len(books)


def sample_books() -> Iterator[AddBook]:
    """Returns a command for each sample book."""
    for row in _rows(_BOOKS):
        fields = {name: value or None for name, value in row.items() if name != "tags"}
        yield build(AddBook, fields, text=True)


def _sample_tags() -> Iterator[SetTags]:
    for row in _rows(_BOOKS):
        yield SetTags(row["title"], BookTags(row["tags"].split(";")))


def _sample_reviews() -> Iterator[AddReview]:
    for row in _rows(_REVIEWS):
        yield AddReview(row["title"], NewReview(int(row["stars"]), row["text"]))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)

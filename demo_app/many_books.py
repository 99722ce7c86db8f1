"""Plausible books in great number, for `python -m demo_app --books 100000`.

Each is made from its number alone, so that the same books are made every time. No two have the same title or ISBN.
"""

from __future__ import annotations

import datetime
import sys
from collections.abc import Callable
from typing import Any, TextIO

import sqlalchemy as sa

from demo_app.messages import ListBooks
from demo_app.models.book import Book
from diptych import Diptych

MOST_BOOKS = 1_000_000
"""Number of books that a catalogue is filled up to at most."""

_AT_ONCE = 1000


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_ADJECTIVES = _words(
    """Silent Golden Crooked Distant Hidden Last Borrowed Burning Patient Hollow Restless Forgotten Scarlet
    Narrow Quiet Broken Curious Wandering Frozen Secret Common Northern Second Sleeping Ordinary Invisible Velvet
    Reluctant Gentle Wooden Foreign Paper Sunken Crowded Endless Modest Drowned Honest Bitter Naïve"""
)
_NOUNS = _words(
    """Garden Lighthouse Orchard Harbour Café Bridge Letter River Cathedral Island Winter Piano Clockmaker Library
    Mountain Widow Stranger Mirror Railway Kingdom Traveller Meadow Shadow Village Physician Cartographer Château
    Voyage Inheritance Archive Fiancée Theatre Sparrow Observatory Tailor Promise Façade Painter Bakery Daughter
    Judge Ferryman Winemaker Astronomer Gardener Séance Violin Tower Fortress Ship"""
)
_PLACES = _words(
    """Lisbon Zürich Kraków Orléans Göteborg Trieste Bruges Málaga Edinburgh Vienna Tromsø Salamanca Prague Łódź
    Ravenna Galway Antwerp Reykjavík Córdoba Riga Avignon Tübingen Coimbra Bath Palermo Québec Bogotá Valparaíso Kyoto
    Samarkand Istanbul Alexandria Zanzibar Marrakesh Isfahan Odessa Vilnius Corfu Dubrovnik Bergen"""
)
_FIRST_NAMES = _words(
    """Zoë José Anna Søren Amélie Thomas Ngozi Jürgen Clara Łukasz Miriam Daniel Inês Hugo Renée Kenji Olga
    Émile Ruth Tomáš Beatriz Samuel Freya André Leila Patrick Ingrid Mateo Chloé Viktor Nadia Björn Helen Yusuf Márta
    George Sofía Adam Priya Noël"""
)
_LAST_NAMES = _words(
    """Almeida Brontë Castillo Dubois Eriksson Fitzgerald García Hoffmann Ivanova Jansen Kowalski Lefèvre
    Müller Nakamura Okafor Petrović Quinn Rossi Sørensen Tanaka Unger Vargas Whitfield Xavier Yıldız Zieliński
    Andersson Bianchi Çelik Dvořák Esposito Fernández Grünwald Horváth Ibsen Joyner Kaplan Lindqvist Moreau
    Novák"""
)
_ENDINGS = ("", ": A Novel", " and Other Stories", ": A Memoir", ", Revisited")
_TITLES: tuple[Callable[[str, str, str, str], str], ...] = (
    lambda adjective, noun, place, _: f"The {adjective} {noun} of {place}",
    lambda adjective, noun, place, _: f"{adjective} {noun} in {place}",
    lambda adjective, noun, place, _: f"From {place} to the {adjective} {noun}",
    lambda adjective, noun, _, name: f"{name} and the {adjective} {noun}",
)
_SPACE = len(_TITLES) * len(_ADJECTIVES) * len(_NOUNS) * len(_PLACES) * len(_ENDINGS)
_STEP = 982_451_653  # prime, so that the numbers from 0 on lead once to each title before one comes again
_LAST_DAY = datetime.date(2024, 12, 31)
_DAYS = 70_000


def book(number: int) -> dict[str, Any]:
    """Returns the fields of a book, by its number."""
    chance = _mixed(number)
    return {
        "title": _title(number),
        "author": _author(chance % 10_000 / 10_000),
        "published_date": None if chance % 37 == 0 else _published(chance // 10_000 % 10_000 / 10_000),
        "isbn": isbn_of(number),
        "stock_quantity": chance // 100_000_000 % 41 % 32,
    }


def isbn_of(number: int) -> str:
    """Returns an ISBN of 13 digits, the last of which is its check digit."""
    digits = f"978{(number * 7919 + 123_456_789) % 1_000_000_000:09}"
    weighted = sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(digits))
    return f"{digits}{-weighted % 10}"


def _title(number: int) -> str:
    rest = number * _STEP % _SPACE
    rest, kind = divmod(rest, len(_TITLES))
    rest, adjective = divmod(rest, len(_ADJECTIVES))
    rest, noun = divmod(rest, len(_NOUNS))
    ending, place = divmod(rest, len(_PLACES))
    words = _ADJECTIVES[adjective], _NOUNS[noun], _PLACES[place], _FIRST_NAMES[place]
    return _TITLES[kind](*words) + _ENDINGS[ending]


def _author(chance: float) -> str:
    # Some have written much, most little.
    last, first = divmod(int(chance**2 * len(_FIRST_NAMES) * len(_LAST_NAMES)), len(_FIRST_NAMES))
    return f"{_FIRST_NAMES[first]} {_LAST_NAMES[last]}"


def _published(chance: float) -> datetime.date:
    return _LAST_DAY - datetime.timedelta(days=int(chance**2 * _DAYS))


def _mixed(number: int) -> int:
    """Returns a number of 64 bits that looks like chance (the finalizer of SplitMix64)."""
    mask = (1 << 64) - 1
    mixed = (number + 1) * 0x9E3779B97F4A7C15 & mask
    mixed = (mixed ^ mixed >> 30) * 0xBF58476D1CE4E5B9 & mask
    mixed = (mixed ^ mixed >> 27) * 0x94D049BB133111EB & mask
    return mixed ^ mixed >> 31


async def fill(catalogue: Diptych, wanted: int, told: Callable[[int], None]) -> int:
    """Adds books until there are as many as `wanted`; returns how many were added.

    Books that are there already are not added again. `told` is called with the number of books there by now.
    """
    there = before = (await catalogue.ask(ListBooks(limit=1, count=True))).decode().total or 0
    told(there)
    first = 0
    while there < wanted:
        rows = [book(number) for number in range(first, first + _AT_ONCE)]
        titles, isbns = await _taken(catalogue, rows)
        new = [row for row in rows if row["title"] not in titles and row["isbn"] not in isbns]
        await catalogue.orm.create_all(Book, new[: wanted - there])
        there += len(new[: wanted - there])
        first += _AT_ONCE
        told(there)
    return there - before


async def _taken(catalogue: Diptych, rows: list[dict[str, Any]]) -> tuple[set[str], set[str | None]]:
    """Returns the titles and the ISBNs of books in the catalogue that have one of these rows."""
    titles, isbns = [row["title"] for row in rows], [row["isbn"] for row in rows]
    statement = sa.select(Book.title, Book.isbn).where(Book.title.in_(titles) | Book.isbn.in_(isbns))
    found = (await catalogue.orm.execute(statement)).all()
    return {row.title for row in found}, {row.isbn for row in found}


class Progress:
    """Tells how many books are there: by a bar on a terminal, elsewhere by a line for each tenth."""

    def __init__(self, wanted: int, stream: TextIO = sys.stderr) -> None:
        self.there = 0
        self.wanted = wanted
        self._stream = stream
        self._is_terminal = stream.isatty()
        self._tenths = -1

    def __call__(self, there: int) -> None:
        """Tells of the books that are there by now."""
        self.there = there
        tenths = min(10 * there // self.wanted, 10)
        if self._is_terminal:
            bar = ("█" * (3 * tenths)).ljust(30, "░")
            self._stream.write(f"\r{bar} {self._counted()}")
        elif tenths > self._tenths and there < self.wanted:
            self._stream.write(f"{self._counted()}\n")
        self._tenths = tenths
        self._stream.flush()

    def end(self, text: str) -> None:
        """Ends with this line."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._is_terminal else f"{text}\n")
        self._stream.flush()

    def _counted(self) -> str:
        return f"{self.there:,} of {self.wanted:,} books are there"

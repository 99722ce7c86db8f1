"""Titles as they are searched for: without case and accents."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo_app.models.book import Book
from demo_app.models.folding import MAX_LENGTH, folded


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("The Trial", "the trial"),
        ("Émile, ou De l'éducation", "emile, ou de l'education"),
        ("E\u0301mile", "emile"),
        ("Les Misérables", "les miserables"),
        ("Mörder, Straße, STRASSE, STRAẞE", "morder, strasse, strasse, strasse"),
        ("Quo vadis, Łódź", "quo vadis, lodz"),
        ("Æsop Œuvre Ørsted Þór Đorđe", "aesop oeuvre orsted thor dorde"),
        ("İstanbul ısırgan", "istanbul isirgan"),
        ("Преступление и наказание: ЁЖ", "преступление и наказание: еж"),
        ("Ὀδύσσεια ΣΊΣΥΦΟΣ", "οδυσσεια σισυφοσ"),
        ("ﬁn №\u2009Ⅳ", "fin no iv"),
        ("紅樓夢", "紅樓夢"),
        ("", ""),
    ],
)
def test_case_and_accents_are_left_out(text: str, wanted: str):
    assert folded(text) == wanted


@given(st.text(max_size=60), st.text(max_size=20))
def test_a_text_is_found_by_its_beginning_in_any_case_and_form(text: str, rest: str):
    found = folded(text + rest)
    # A mark at the boundary belongs to the letter before it.
    if not unicodedata.combining(next(iter(unicodedata.normalize("NFD", rest)), "x")):
        assert found.startswith(folded(text)[: len(found)])
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert folded(unicodedata.normalize(form, text)) == folded(text)
    assert folded(folded(text)) == folded(text)


def test_an_expanding_text_fits_the_column():
    longest = "\ufdfa" * 200  # one letter of eighteen
    assert len(folded(longest)) == MAX_LENGTH
    assert Book(title=longest).search_title == folded(longest)

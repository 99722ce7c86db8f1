"""The books that the demonstration is filled with."""

from __future__ import annotations

import datetime
import io
from itertools import islice

from demo_app.many_books import MOST_BOOKS, Progress, _title, book, isbn_of
from demo_app.messages import AddBook
from diptych import build


def test_they_are_books_that_differ():
    books = [book(number) for number in range(20_000)]
    for fields in islice(books, 0, None, 97):
        build(AddBook, fields)
    assert len({fields["isbn"] for fields in books}) == len(books)
    assert 500 < len({fields["author"] for fields in books}) < 2000
    dates = [fields["published_date"] for fields in books if fields["published_date"]]
    assert 0.95 * len(books) < len(dates) < len(books)
    assert datetime.date(1800, 1, 1) < min(dates) < max(dates) < datetime.date(2025, 1, 1)
    assert book(17) == book(17)


def test_no_two_titles_are_the_same():
    count = MOST_BOOKS + 100_000  # those of the samples, and of a person, may take the place of some
    assert len({_title(number) for number in range(count)}) == count


def test_the_check_digit_of_an_isbn_is_right():
    for number in range(0, 100_000, 991):
        isbn = isbn_of(number)
        assert len(isbn) == 13
        assert (
            sum(int(digit) * weight for digit, weight in zip(isbn, [1, 3] * 6 + [1], strict=True)) % 10 == 0
        )


def test_without_a_terminal_each_tenth_is_told_once():
    stream = io.StringIO()
    progress = Progress(1000, stream)
    for there in (0, 5, 99, 100, 150, 700, 1000):
        progress(there)
    progress.end("Done.")
    counted = ["0 of 1,000", "100 of 1,000", "700 of 1,000"]
    assert stream.getvalue() == "".join(f"{count} books are there\n" for count in counted) + "Done.\n"

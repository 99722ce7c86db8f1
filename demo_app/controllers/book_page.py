"""The page of a book, with the forms for its reviews and tags."""

from __future__ import annotations

from typing import Any

from demo_app.controllers.responses import Catalogue, no_such_book
from demo_app.flash import Flash
from demo_app.forms import specs
from demo_app.forms.form import Form
from demo_app.forms.tags_form import TagsForm
from demo_app.messages import GetBook
from demo_app.models.book_read_model import BookDetailDocument
from demo_app.pages import render
from diptych import Document
from diptych.http import Fields, Problem


def found(title: str, document: Document[BookDetailDocument]) -> BookDetailDocument:
    """Returns the book in the document. Raises `NotFound` if there is none."""
    book = document.decode()
    if book is None:
        raise no_such_book(title, document)
    return book


def book_page(book: BookDetailDocument, document: Document[Any], flash: Flash | None = None) -> str:
    """Returns the page of a book."""
    return _page(book, document, Form.blank(specs.REVIEW), TagsForm.of(book.tags), flash)


async def page_of_refused_review(title: str, diptych: Catalogue, fields: Fields, problem: Problem) -> str:
    """Returns the page of a book with the review as it was typed. Raises `NotFound`."""
    document = await diptych.ask(GetBook(title=title))
    book = found(title, document)
    return _page(book, document, Form.refused(specs.REVIEW, fields.values, problem), TagsForm.of(book.tags))


async def page_of_refused_tags(title: str, diptych: Catalogue, fields: Fields, problem: Problem) -> str:
    """Returns the page of a book with the tags as they were chosen and typed. Raises `NotFound`."""
    document = await diptych.ask(GetBook(title=title))
    book = found(title, document)
    return _page(book, document, Form.blank(specs.REVIEW), TagsForm.refused(book.tags, fields, problem))


def _page(
    book: BookDetailDocument,
    document: Document[Any],
    review: Form,
    tags: TagsForm,
    flash: Flash | None = None,
) -> str:
    return render("book.html", book=book, review=review, tags=tags, served=document.served, flash=flash)

"""The page of a book, with the forms for its reviews and tags."""

from __future__ import annotations

from demo_app.controllers.responses import form_again, page_of
from demo_app.flash import Flash
from demo_app.forms import specs
from demo_app.forms.form import Form
from demo_app.forms.tags_form import TagsForm
from demo_app.messages import GetBook
from demo_app.models.book_read_model import BookDetailDocument
from demo_app.pages import render
from diptych import Document
from diptych.http import Answer, EndpointRequest, Html, NotFound, Problem


class BookPage(Html):
    """The page of a book."""

    async def found(
        self, request: EndpointRequest, message: GetBook, found: Document[BookDetailDocument]
    ) -> Answer:
        """Shows the book, and what has happened to it."""
        flash = Flash.of(request.cookies)
        return page_of(found, _page(found, flash=flash), flash)


async def refused_review(request: EndpointRequest, problem: Problem) -> Answer:
    """Returns the page of a book with the review as it was typed. Raises `NotFound`."""
    review = Form.refused(specs.REVIEW, request.fields.values, problem)
    return form_again(_page(await _book_of(request), review=review), problem)


async def refused_tags(request: EndpointRequest, problem: Problem) -> Answer:
    """Returns the page of a book with the tags as they were chosen and typed. Raises `NotFound`."""
    found = await _book_of(request)
    tags = TagsForm.refused(_decoded(found).tags, request.fields, problem)
    return form_again(_page(found, tags=tags), problem)


async def _book_of(request: EndpointRequest) -> Document[BookDetailDocument]:
    return await request.diptych.ask(GetBook(title=request.parameters["title"]))


def _decoded(found: Document[BookDetailDocument]) -> BookDetailDocument:
    book = found.decode()
    if book is None:
        raise NotFound("there is no such book")
    return book


def _page(
    found: Document[BookDetailDocument],
    *,
    review: Form | None = None,
    tags: TagsForm | None = None,
    flash: Flash | None = None,
) -> str:
    book = _decoded(found)
    forms = {"review": review or Form.blank(specs.REVIEW), "tags": tags or TagsForm.of(book.tags)}
    return render("book.html", book=book, **forms, served=found.served, flash=flash)

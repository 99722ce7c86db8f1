"""Queries of the catalogue under /books. Nothing here changes anything."""

from __future__ import annotations

from msgspec.structs import replace

from demo_app.controllers.book_page import BookPage
from demo_app.controllers.responses import NO_BOOK, form_again, page_of
from demo_app.flash import Flash
from demo_app.forms import specs
from demo_app.forms.filter_form import FilterForm
from demo_app.forms.form import Form
from demo_app.messages import EmptyBook, GetBook, ListBooks, StartBook
from demo_app.models.book_read_model import BookDetailDocument, BookDocument
from demo_app.pages import render
from diptych import Document, Page
from diptych.http import QUERY_HEADERS, Answer, Endpoint, EndpointRequest, Html, Problem


class BookList(Html):
    """The list with the form above it, and the number of all books that are selected."""

    def query(self, message: ListBooks) -> ListBooks:
        """Has the books counted."""
        return replace(message, count=True)

    async def found(self, request: EndpointRequest, message: ListBooks, found: Page[BookDocument]) -> Answer:
        """Shows a page of the list."""
        flash = Flash.of(request.cookies)
        shown = {"page": found.decode(), "query": message, "set_aside": found.set_aside, "flash": flash}
        form = FilterForm.of(request.parameters)
        return page_of(found, render("list.html", **shown, form=form, served=found.served), flash)

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        """Shows the form again, and no books."""
        form = FilterForm.of(request.parameters).refused(problem)
        return form_again(render("list.html", form=form, page=None), problem)


class EditPage(Html):
    """The form to edit a book."""

    async def found(
        self, request: EndpointRequest, message: GetBook, found: Document[BookDetailDocument]
    ) -> Answer:
        """Shows the form with the book."""
        form = Form.of(specs.BOOK, found.decode())
        return page_of(found, render("edit.html", title=message.title, form=form, served=found.served))


class AddPage(Html):
    """The form to add a book."""

    async def found(self, request: EndpointRequest, message: StartBook, found: EmptyBook) -> Answer:
        """Shows the empty form."""
        return Answer.page(render("add.html", form=Form.blank(specs.BOOK)), headers=QUERY_HEADERS)


class QueriesBooksController:
    """The list, a book, and the forms to add and to edit one."""

    endpoints = (
        Endpoint("GET", "/books/action/add", StartBook, html=AddPage()),
        Endpoint("GET", "/books", ListBooks, html=BookList()),
        Endpoint("GET", "/books/{title}", GetBook, missing=NO_BOOK, html=BookPage()),
        Endpoint("GET", "/books/{title}/edit", GetBook, missing=NO_BOOK, html=EditPage()),
    )

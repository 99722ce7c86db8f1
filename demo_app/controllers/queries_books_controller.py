"""Queries of the catalogue under /books. Nothing here changes anything."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Response, get
from litestar.params import FromPath
from msgspec.structs import replace

from demo_app.controllers.book_page import book_page, found
from demo_app.controllers.queries import query_of, sent_parameters
from demo_app.controllers.responses import Catalogue, WebRequest, html_answer, json_answer, query_answer
from demo_app.flash import Flash
from demo_app.forms import specs
from demo_app.forms.filter_form import FilterForm
from demo_app.forms.form import Form
from demo_app.messages import AddBook, GetBook, ListBooks
from demo_app.pages import render
from diptych import InvalidMessage
from diptych.http import QUERY_HEADERS, answer_headers, prefers_html, problem_for

# The fields of POST /books/action/add with their defaults: null where a field has none.
_NEW_BOOK = msgspec.json.encode(
    {f.name: None if f.required else f.default for f in msgspec.structs.fields(AddBook)}
)


class QueriesBooksController(Controller):
    """The list, a book, and the forms."""

    path = "/books"

    @get()
    async def list_books(self, request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Answers with a page of the catalogue."""
        sent = sent_parameters(request)
        if not prefers_html(request.scope):
            return query_answer(request, await diptych.ask(query_of(ListBooks, sent)))
        # Of a parameter that was sent more than once the first value is shown.
        form = FilterForm.of(dict(reversed(sent)))
        try:
            query = replace(query_of(ListBooks, sent), count=True)
            page = await diptych.ask(query)
        except InvalidMessage as error:
            problem = problem_for(error)
            return html_answer(render("list.html", form=form.refused(problem), page=None), 422, QUERY_HEADERS)
        flash = Flash.of(request.cookies)
        shown = {"page": page.decode(), "query": query, "set_aside": page.set_aside}
        html = render("list.html", **shown, form=form, served=page.served, flash=flash)
        return _shown_once(html_answer(html, headers=answer_headers(page)), flash)

    @get("/{title:str}")
    async def get_book(self, title: FromPath[str], request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Answers with a book."""
        document = await diptych.ask(GetBook(title=title))
        book = found(title, document)
        if not prefers_html(request.scope):
            return query_answer(request, document)
        flash = Flash.of(request.cookies)
        html = book_page(book, document, flash)
        return _shown_once(html_answer(html, headers=answer_headers(document)), flash)

    @get("/{title:str}/edit")
    async def show_edit_form(
        self, title: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Answers with the form to edit a book; in JSON, with the book."""
        document = await diptych.ask(GetBook(title=title))
        book = found(title, document)
        if not prefers_html(request.scope):
            return query_answer(request, document)
        html = render("edit.html", title=title, form=Form.of(specs.BOOK, book), served=document.served)
        return html_answer(html, headers=answer_headers(document))

    @get("/action/add")
    async def show_add_form(self, request: WebRequest) -> Response[Any]:
        """Answers with the form to add a book; in JSON, with its fields and their first values."""
        if not prefers_html(request.scope):
            return json_answer(_NEW_BOOK, headers=QUERY_HEADERS)
        return html_answer(render("add.html", form=Form.blank(specs.BOOK)), headers=QUERY_HEADERS)


def _shown_once(response: Response[str], flash: Flash | None) -> Response[str]:
    if flash is not None:
        response.delete_cookie(Flash.COOKIE, path=Flash.PATH)
    return response

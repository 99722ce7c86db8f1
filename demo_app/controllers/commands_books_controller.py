"""Commands of the catalogue under /books, in JSON or by a form. Each is a single transaction."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from litestar import Controller, Response, delete, patch, post
from litestar.params import FromPath
from msgspec.structs import asdict

from demo_app.controllers.responses import (
    Catalogue,
    WebRequest,
    book_path,
    html_answer,
    json_answer,
    no_such_book,
    see_other,
)
from demo_app.forms.book_form import BookForm
from demo_app.messages import AddBook, BookChanges, DeleteBook, EditBook
from demo_app.models.book_read_model import BookDocument
from demo_app.pages import render
from diptych import ConstraintError, Fault, InvalidMessage, UnavailableError, build
from diptych.http import QUERY_HEADERS, Fields, method_override, prefers_html, problem_for, read_fields

S = TypeVar("S", bound=msgspec.Struct)

# Refusals after which a form is shown again, as it was typed.
_REFUSALS = (InvalidMessage, ConstraintError, UnavailableError)


class CommandsBooksController(Controller):
    """Adding, editing and deleting books."""

    path = "/books"

    @post("/action/add")
    async def add_book(self, request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Adds a book: 201 with the book, or 303 to its page."""
        fields = await _fields(request, diptych)
        try:
            command = _built(AddBook, fields)
            book_id = await diptych.execute(command)
        except _REFUSALS as error:
            return _form_again(error, request, fields, "add.html")
        path = book_path(command.title)
        if fields.is_form:
            return see_other(request, path, "added", command.title)
        book = BookDocument(id=book_id, **asdict(command))
        return json_answer(msgspec.json.encode(book), 201, {"Location": path})

    @patch("/{title:str}/edit")
    async def edit_book(self, title: FromPath[str], request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Changes the fields in the request: 200 with the book, or 303 to its page."""
        return await _edit(title, request, diptych)

    @post("/{title:str}/edit")
    async def edit_book_by_form(
        self, title: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Does the same for `_method=PATCH`, since HTML forms know no PATCH."""
        return await _edit(title, request, diptych, "PATCH")

    @delete("/{title:str}/delete", status_code=200)
    async def delete_book(
        self, title: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Deletes a book: 204, or 303 to the list."""
        return await _delete(title, request, diptych)

    @post("/{title:str}/delete")
    async def delete_book_by_form(
        self, title: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Does the same for `_method=DELETE`."""
        return await _delete(title, request, diptych, "DELETE")


class _NoFields(msgspec.Struct):
    """The fields of a deletion."""


async def _edit(
    title: str, request: WebRequest, diptych: Catalogue, method: str | None = None
) -> Response[Any]:
    fields = await _fields(request, diptych)
    try:
        changes = _built(BookChanges, _meant(fields, method))
        book = await diptych.execute(EditBook(title=title, changes=changes))
    except _REFUSALS as error:
        return _form_again(error, request, fields, "edit.html", title=title)
    if book is None:
        raise no_such_book(title)
    if fields.is_form:
        return see_other(request, book_path(book.title), "changed", book.title)
    return json_answer(msgspec.json.encode(book))


async def _delete(
    title: str, request: WebRequest, diptych: Catalogue, method: str | None = None
) -> Response[Any]:
    fields = await _fields(request, diptych)
    _built(_NoFields, _meant(fields, method))
    if not await diptych.execute(DeleteBook(title=title)):
        raise no_such_book(title)
    if fields.is_form:
        return see_other(request, "/books", "deleted", title)
    return Response(None, status_code=204)


async def _fields(request: WebRequest, diptych: Catalogue) -> Fields:
    max_bytes = diptych.config.get("MAX_BODY_BYTES")
    return await read_fields(request.scope, request.receive, max_bytes, keep_repeated=True)


def _meant(fields: Fields, method: str | None) -> Fields:
    """Returns the fields without `_method`, which has to name `method`; with None, all fields."""
    if method is None:
        return fields
    meant, others = method_override(fields, allowed=(method,))
    if meant is None:
        raise InvalidMessage("form", [Fault("_method", f"must be {method}, in a form")])
    return others


def _built(kind: type[S], fields: Fields) -> S:
    if fields.repeated:
        raise InvalidMessage(kind.__name__, fields.repeated)
    return build(kind, fields.values, text=fields.is_form)


def _form_again(
    error: Exception, request: WebRequest, fields: Fields, template: str, **values: object
) -> Response[str]:
    """Returns the form with the typed values and their faults to a browser. Raises the error for other clients."""
    if not (fields.is_form and prefers_html(request.scope)):
        raise error
    problem = problem_for(error)
    page = render(template, form=BookForm.refused(fields.values, problem), **values)
    return html_answer(page, problem.status, {**QUERY_HEADERS, **problem.headers})

"""Commands on books under /books, in JSON or by a form. Each is a single transaction."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Response, delete, patch, post
from litestar.params import FromPath
from msgspec.structs import asdict

from demo_app.controllers.commands import (
    REFUSALS,
    NoFields,
    built,
    fields_of,
    form_again,
    meant,
    problem_shown,
)
from demo_app.controllers.responses import (
    Catalogue,
    WebRequest,
    book_path,
    json_answer,
    no_such_book,
    see_other,
)
from demo_app.forms import specs
from demo_app.forms.form import Form
from demo_app.messages import AddBook, BookChanges, DeleteBook, EditBook
from demo_app.models.book_read_model import BookDocument
from demo_app.pages import render


class CommandsBooksController(Controller):
    """Adding, editing and deleting books."""

    path = "/books"

    @post("/action/add")
    async def add_book(self, request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Adds a book: 201 with the book, or 303 to its page."""
        fields = await fields_of(request, diptych)
        try:
            command = built(AddBook, fields)
            book_id = await diptych.execute(command)
        except REFUSALS as error:
            problem = problem_shown(error, request, fields)
            form = Form.refused(specs.BOOK, fields.values, problem)
            return form_again(render("add.html", form=form), problem)
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


async def _edit(
    title: str, request: WebRequest, diptych: Catalogue, method: str | None = None
) -> Response[Any]:
    fields = await fields_of(request, diptych)
    try:
        changes = built(BookChanges, meant(fields, method))
        book = await diptych.execute(EditBook(title=title, changes=changes))
    except REFUSALS as error:
        problem = problem_shown(error, request, fields)
        form = Form.refused(specs.BOOK, fields.values, problem)
        return form_again(render("edit.html", form=form, title=title), problem)
    if book is None:
        raise no_such_book(title)
    if fields.is_form:
        return see_other(request, book_path(book.title), "changed", book.title)
    return json_answer(msgspec.json.encode(book))


async def _delete(
    title: str, request: WebRequest, diptych: Catalogue, method: str | None = None
) -> Response[Any]:
    fields = await fields_of(request, diptych)
    built(NoFields, meant(fields, method))
    if not await diptych.execute(DeleteBook(title=title)):
        raise no_such_book(title)
    if fields.is_form:
        return see_other(request, "/books", "deleted", title)
    return Response(None, status_code=204)

"""Commands on books under /books, in JSON or by a form. Each is a single transaction."""

from __future__ import annotations

from functools import partial

from msgspec.structs import asdict

from demo_app.controllers.responses import NO_BOOK, form_again, see_other
from demo_app.forms import specs
from demo_app.forms.form import Form
from demo_app.messages import AddBook, DeleteBook, EditBook
from demo_app.models.book_read_model import BookDocument
from demo_app.pages import book_path, render
from diptych.http import Answer, Endpoint, EndpointRequest, Html, Problem


class AddForm(Html):
    """The form to add a book."""

    async def done(self, request: EndpointRequest, message: AddBook, result: int) -> Answer:
        """Leads to the page of the book."""
        return see_other(request, book_path(message.title), "added", message.title)

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        """Shows the form again."""
        form = Form.refused(specs.BOOK, request.fields.values, problem)
        return form_again(render("add.html", form=form), problem)


class EditForm(Html):
    """The form to edit a book."""

    async def done(self, request: EndpointRequest, message: EditBook, result: BookDocument) -> Answer:
        """Leads to the page of the book."""
        return see_other(request, book_path(result.title), "changed", result.title)

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        """Shows the form again."""
        form = Form.refused(specs.BOOK, request.fields.values, problem)
        return form_again(render("edit.html", form=form, title=request.parameters["title"]), problem)


class DeleteForm(Html):
    """The button that deletes a book."""

    async def done(self, request: EndpointRequest, message: DeleteBook, result: bool) -> Answer:
        """Leads to the list."""
        return see_other(request, "/books", "deleted", message.title)


def _added(command: AddBook, book_id: int) -> BookDocument:
    return BookDocument(id=book_id, **asdict(command))


class CommandsBooksController:
    """Adding, editing and deleting books. HTML forms know neither PATCH nor DELETE: they name them in a POST."""

    edit = partial(Endpoint, message=EditBook, body="changes", missing=NO_BOOK, form=True, html=EditForm())
    delete = partial(Endpoint, message=DeleteBook, missing=NO_BOOK, form=True, html=DeleteForm())
    endpoints = (
        Endpoint(
            "POST",
            "/books/action/add",
            AddBook,
            form=True,
            status=201,
            location="/books/{title}",
            answer=_added,
            html=AddForm(),
        ),
        edit("PATCH", "/books/{title}/edit"),
        edit("POST", "/books/{title}/edit", override="PATCH", override_required=True),
        delete("DELETE", "/books/{title}/delete"),
        delete("POST", "/books/{title}/delete", override="DELETE", override_required=True),
    )

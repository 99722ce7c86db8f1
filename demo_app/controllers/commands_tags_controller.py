"""Commands on tags: those of a book under /books, and the tags themselves under /tags."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Controller, Response, patch, post, put
from litestar.params import FromPath

from demo_app.controllers.book_page import page_of_refused_tags
from demo_app.controllers.commands import (
    REFUSALS,
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
    no_such_tag,
    see_other,
)
from demo_app.forms import specs, tags_form
from demo_app.forms.form import Form
from demo_app.messages import BookTags, RenameTag, SetTags, TagChanges
from demo_app.pages import list_path, render


class CommandsBookTagsController(Controller):
    """Setting the tags of a book."""

    path = "/books"

    @put("/{title:str}/tags")
    async def set_tags(self, title: FromPath[str], request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Gives the book these tags and no others: 200 with the book, or 303 to its page."""
        return await _set(title, request, diptych)

    @post("/{title:str}/tags", status_code=200)
    async def set_tags_by_form(
        self, title: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Does the same, since HTML forms know no PUT."""
        return await _set(title, request, diptych)


class CommandsTagsController(Controller):
    """Renaming tags."""

    path = "/tags"

    @patch("/{name:str}")
    async def rename_tag(self, name: FromPath[str], request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Renames a tag in all books: 200 with the tag, or 303 to its books."""
        return await _rename(name, request, diptych)

    @post("/{name:str}/edit", status_code=200)
    async def rename_tag_by_form(
        self, name: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Does the same, since HTML forms know no PATCH."""
        return await _rename(name, request, diptych)


async def _set(title: str, request: WebRequest, diptych: Catalogue) -> Response[Any]:
    fields = await fields_of(request, diptych, several=tags_form.FIELDS)
    try:
        tags = built(BookTags, tags_form.sent_tags(meant(fields, "PUT", required=False)))
        book = await diptych.execute(SetTags(title=title, tags=tags))
    except REFUSALS as error:
        problem = problem_shown(error, request, fields)
        return form_again(await page_of_refused_tags(title, diptych, fields, problem), problem)
    if book is None:
        raise no_such_book(title)
    if fields.is_form:
        return see_other(request, book_path(title), "tagged", title)
    return json_answer(msgspec.json.encode(book))


async def _rename(name: str, request: WebRequest, diptych: Catalogue) -> Response[Any]:
    fields = await fields_of(request, diptych)
    try:
        changes = built(TagChanges, meant(fields, "PATCH", required=False))
        tag = await diptych.execute(RenameTag(name=name, changes=changes))
    except REFUSALS as error:
        problem = problem_shown(error, request, fields)
        form = Form.refused(specs.TAG, fields.values, problem)
        return form_again(render("edit_tag.html", form=form, name=name), problem)
    if tag is None:
        raise no_such_tag(name)
    if fields.is_form:
        return see_other(request, list_path({"tag": tag.name}), "renamed", tag.name)
    return json_answer(msgspec.json.encode(tag))

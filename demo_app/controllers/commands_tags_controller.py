"""Commands on tags: those of a book under /books, and the tags themselves under /tags."""

from __future__ import annotations

from functools import partial

from demo_app.controllers.book_page import refused_tags
from demo_app.controllers.responses import NO_BOOK, NO_TAG, form_again, see_other
from demo_app.forms import specs, tags_form
from demo_app.forms.form import Form
from demo_app.messages import RenameTag, SetTags
from demo_app.models.book_read_model import BookDocument, TagDocument
from demo_app.pages import book_path, list_path, render
from diptych.http import Answer, Endpoint, EndpointRequest, Fields, Html, Problem


class TagsForm(Html):
    """The form of a book's tags, on its page."""

    def fields(self, sent: Fields) -> Fields:
        """Returns the list of names, of those that are kept and those that were typed."""
        return tags_form.sent_tags(sent)

    async def done(self, request: EndpointRequest, message: SetTags, result: BookDocument) -> Answer:
        """Leads back to the page of the book."""
        return see_other(request, book_path(message.title), "tagged", message.title)

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        """Shows the page again."""
        return await refused_tags(request, problem)


class RenameForm(Html):
    """The form to rename a tag."""

    async def done(self, request: EndpointRequest, message: RenameTag, result: TagDocument) -> Answer:
        """Leads to the books of the tag."""
        return see_other(request, list_path({"tag": result.name}), "renamed", result.name)

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        """Shows the form again."""
        form = Form.refused(specs.TAG, request.fields.values, problem)
        return form_again(render("edit_tag.html", form=form, name=request.parameters["name"]), problem)


class CommandsTagsController:
    """Setting the tags of a book, and renaming tags. Forms may name the method that they mean, and need not."""

    set_tags = partial(
        Endpoint,
        message=SetTags,
        body="tags",
        missing=NO_BOOK,
        form=True,
        several=tags_form.FIELDS,
        override="PUT",
        html=TagsForm(),
    )
    rename = partial(
        Endpoint,
        message=RenameTag,
        body="changes",
        missing=NO_TAG,
        form=True,
        override="PATCH",
        html=RenameForm(),
    )
    endpoints = (
        set_tags("PUT", "/books/{title}/tags"),
        set_tags("POST", "/books/{title}/tags"),
        rename("PATCH", "/tags/{name}"),
        rename("POST", "/tags/{name}/edit"),
    )

"""Queries of the tags under /tags. Nothing here changes anything."""

from __future__ import annotations

from msgspec.structs import replace

from demo_app.controllers.responses import NO_TAG, page_of
from demo_app.forms import specs
from demo_app.forms.form import Form
from demo_app.messages import GetTag, ListTags
from demo_app.models.book_read_model import TagDocument
from demo_app.pages import render
from diptych import Document, Page
from diptych.http import Answer, Endpoint, EndpointRequest, Html


class TagList(Html):
    """The list of the tags, with their number."""

    def query(self, message: ListTags) -> ListTags:
        """Has the tags counted."""
        return replace(message, count=True)

    async def found(self, request: EndpointRequest, message: ListTags, found: Page[TagDocument]) -> Answer:
        """Shows a page of the list."""
        shown = {"page": found.decode(), "query": message, "sent": request.parameters}
        return page_of(found, render("tags.html", **shown, served=found.served))


class RenamePage(Html):
    """The form to rename a tag."""

    async def found(self, request: EndpointRequest, message: GetTag, found: Document[TagDocument]) -> Answer:
        """Shows the form with the tag."""
        form = Form.of(specs.TAG, found.decode())
        return page_of(found, render("edit_tag.html", name=message.name, form=form, served=found.served))


class QueriesTagsController:
    """The list of the tags, and the form to rename one."""

    endpoints = (
        Endpoint("GET", "/tags", ListTags, html=TagList()),
        Endpoint("GET", "/tags/{name}/edit", GetTag, missing=NO_TAG, html=RenamePage()),
    )

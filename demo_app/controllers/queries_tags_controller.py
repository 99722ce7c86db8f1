"""Queries of the tags under /tags. Nothing here changes anything."""

from __future__ import annotations

from typing import Any

from litestar import Controller, Response, get
from litestar.params import FromPath
from msgspec.structs import replace

from demo_app.controllers.queries import query_of, sent_parameters
from demo_app.controllers.responses import (
    Catalogue,
    WebRequest,
    html_answer,
    no_such_tag,
    query_answer,
)
from demo_app.forms import specs
from demo_app.forms.form import Form
from demo_app.messages import GetTag, ListTags
from demo_app.pages import render
from diptych.http import answer_headers, prefers_html


class QueriesTagsController(Controller):
    """The list of the tags, and the form to rename one."""

    path = "/tags"

    @get()
    async def list_tags(self, request: WebRequest, diptych: Catalogue) -> Response[Any]:
        """Answers with a page of the tags."""
        sent = sent_parameters(request)
        query = query_of(ListTags, sent)
        if not prefers_html(request.scope):
            return query_answer(request, await diptych.ask(query))
        page = await diptych.ask(replace(query, count=True))
        html = render("tags.html", page=page.decode(), query=query, sent=dict(sent), served=page.served)
        return html_answer(html, headers=answer_headers(page))

    @get("/{name:str}/edit")
    async def show_rename_form(
        self, name: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Answers with the form to rename the tag; in JSON, with the tag."""
        document = await diptych.ask(GetTag(name=name))
        tag = document.decode()
        if tag is None:
            raise no_such_tag(name, document)
        if not prefers_html(request.scope):
            return query_answer(request, document)
        html = render("edit_tag.html", name=name, form=Form.of(specs.TAG, tag), served=document.served)
        return html_answer(html, headers=answer_headers(document))

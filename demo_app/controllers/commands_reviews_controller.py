"""Commands on reviews under /books, in JSON or by a form. Each is a single transaction."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from litestar import Controller, Response, delete, post
from litestar.params import FromPath

from demo_app.controllers.book_page import page_of_refused_review
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
    no_such_review,
    see_other,
)
from demo_app.messages import AddReview, DeleteReview, NewReview

_GREATEST_ID = 2_147_483_647


class CommandsReviewsController(Controller):
    """Adding and deleting reviews of a book."""

    path = "/books"

    @post("/{title:str}/reviews")
    async def add_review(
        self, title: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Adds a review: 201 with the book, or 303 to its page."""
        fields = await fields_of(request, diptych)
        try:
            review = built(NewReview, meant(fields, "POST", required=False))
            added = await diptych.execute(AddReview(title=title, review=review))
        except REFUSALS as error:
            problem = problem_shown(error, request, fields)
            return form_again(await page_of_refused_review(title, diptych, fields, problem), problem)
        if added is None:
            raise no_such_book(title)
        path = book_path(title)
        if fields.is_form:
            return see_other(request, path, "reviewed", title)
        location = {"Location": f"{path}/reviews/{added.id}"}
        return json_answer(msgspec.json.encode(added.book), 201, location)

    @delete("/{title:str}/reviews/{review_id:str}", status_code=200)
    async def delete_review(
        self, title: FromPath[str], review_id: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Deletes a review: 204, or 303 to the page of the book."""
        return await _delete(title, review_id, request, diptych)

    @post("/{title:str}/reviews/{review_id:str}/delete")
    async def delete_review_by_form(
        self, title: FromPath[str], review_id: FromPath[str], request: WebRequest, diptych: Catalogue
    ) -> Response[Any]:
        """Does the same, since HTML forms know no DELETE."""
        return await _delete(title, review_id, request, diptych)


async def _delete(title: str, review_id: str, request: WebRequest, diptych: Catalogue) -> Response[Any]:
    fields = await fields_of(request, diptych)
    built(NoFields, meant(fields, "DELETE", required=False))
    is_id = re.fullmatch("[1-9][0-9]{0,9}", review_id) is not None and int(review_id) <= _GREATEST_ID
    if not is_id or not await diptych.execute(DeleteReview(title=title, id=int(review_id))):
        raise no_such_review(title, review_id)
    if fields.is_form:
        return see_other(request, book_path(title), "unreviewed", title)
    return Response(None, status_code=204)

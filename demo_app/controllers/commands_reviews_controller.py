"""Commands on reviews under /books, in JSON or by a form. Each is a single transaction."""

from __future__ import annotations

from functools import partial

from demo_app.controllers.book_page import refused_review
from demo_app.controllers.responses import NO_BOOK, see_other
from demo_app.messages import AddedReview, AddReview, DeleteReview
from demo_app.models.book_read_model import BookDocument
from demo_app.pages import book_path
from diptych.http import Answer, Endpoint, EndpointRequest, Html, Problem


class ReviewForm(Html):
    """The form to add a review, on the page of its book."""

    async def done(self, request: EndpointRequest, message: AddReview, result: AddedReview) -> Answer:
        """Leads back to the page of the book."""
        return see_other(request, book_path(message.title), "reviewed", message.title)

    async def refused(self, request: EndpointRequest, problem: Problem) -> Answer:
        """Shows the page again."""
        return await refused_review(request, problem)


class DeleteForm(Html):
    """The button that deletes a review."""

    async def done(self, request: EndpointRequest, message: DeleteReview, result: bool) -> Answer:
        """Leads back to the page of the book."""
        return see_other(request, book_path(message.title), "unreviewed", message.title)


def _added(command: AddReview, added: AddedReview) -> BookDocument:
    return added.book


class CommandsReviewsController:
    """Adding and deleting reviews of a book. Forms may name the method that they mean, and need not."""

    delete = partial(
        Endpoint,
        message=DeleteReview,
        missing="there is no review “{review_id}” of a book “{title}”",
        form=True,
        override="DELETE",
        html=DeleteForm(),
    )
    endpoints = (
        Endpoint(
            "POST",
            "/books/{title}/reviews",
            AddReview,
            body="review",
            form=True,
            override="POST",
            status=201,
            location="/books/{title}/reviews/{id}",
            answer=_added,
            missing=NO_BOOK,
            html=ReviewForm(),
        ),
        delete("DELETE", "/books/{title}/reviews/{review_id}"),
        delete("POST", "/books/{title}/reviews/{review_id}/delete"),
    )

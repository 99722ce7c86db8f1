"""Handlers of commands on reviews."""

from __future__ import annotations

from msgspec.structs import asdict

from demo_app.handlers.book_answers import document_of
from demo_app.messages import AddedReview, AddReview, DeleteReview
from demo_app.models.book import Book, Review
from diptych import ORMService


class ReviewCommandHandler:
    """Changes reviews in SQL. Each method is a transaction."""

    def __init__(self, orm_service: ORMService) -> None:
        self.orm_service = orm_service

    async def add_review(self, command: AddReview) -> AddedReview | None:
        book = await self.orm_service.get(Book, command.title, "title")
        if book is None:
            return None
        review = await self.orm_service.create(Review, book_id=book.id, **asdict(command.review))
        return AddedReview(review.id, await document_of(book, self.orm_service))

    async def delete_review(self, command: DeleteReview) -> bool:
        book = await self.orm_service.get(Book, command.title, "title")
        review = await self.orm_service.get(Review, command.review_id)
        if book is None or review is None or review.book_id != book.id:
            return False
        return await self.orm_service.delete(Review, command.review_id)

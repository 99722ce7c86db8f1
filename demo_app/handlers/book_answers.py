"""The answers to commands: a book as lists show it, as the command leaves it."""

from __future__ import annotations

import sqlalchemy as sa

from demo_app.models.book import Book, Review, Tag, book_tags
from demo_app.models.book_read_model import BookDocument
from diptych import ORMService

_TAGS = (
    sa.select(Tag.name)
    .join(book_tags, book_tags.c.tag_id == Tag.id)
    .where(book_tags.c.book_id == sa.bindparam("of"))
    .order_by(Tag.name)
)
_STARS = sa.select(
    sa.func.count().label("number"), sa.cast(sa.func.sum(Review.stars), sa.BigInteger).label("stars")
).where(Review.book_id == sa.bindparam("of"))


async def document_of(book: Book, orm: ORMService) -> BookDocument:
    """Returns the document that the read model makes of the book, read in the transaction of the command."""
    tags = (await orm.execute(_TAGS, {"of": book.id})).scalars().all()
    given = (await orm.execute(_STARS, {"of": book.id})).one()
    return BookDocument(
        id=book.id,
        title=book.title,
        author=book.author,
        published_date=book.published_date,
        isbn=book.isbn,
        stock_quantity=book.stock_quantity,
        tags=list(tags),
        review_count=given.number,
        # Rounded half up, as the read model rounds: of whole numbers, since a float would round some ties down.
        rating=(200 * given.stars + given.number) // (2 * given.number) / 100 if given.number else None,
    )

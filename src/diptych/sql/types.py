"""Column types with the same meaning on every database."""

from __future__ import annotations

import sqlalchemy as sa


def code_point_text(length: int | None = None) -> sa.String:
    """Returns a column type for text, compared and ordered by code point on every database: case and accents count.

    ``length`` is the greatest length, in code points; unlimited without it. SQLite compares text like this by itself,
    PostgreSQL with the collation "C", whatever the locale of the database. Text columns that are the key of a read
    model, or in one of its lists, need such a type.

    >>> from diptych import code_point_text
    >>> from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    >>> class Base(DeclarativeBase):
    ...     pass
    >>> class Book(Base):
    ...     __tablename__ = "books"
    ...     id: Mapped[int] = mapped_column(primary_key=True)
    ...     title: Mapped[str] = mapped_column(code_point_text(200), unique=True)
    >>> Book.__table__.columns["title"].type
    String(length=200)
    """
    plain = sa.String(length) if length else sa.Text()
    return plain.with_variant(sa.String(length, collation="C"), "postgresql")

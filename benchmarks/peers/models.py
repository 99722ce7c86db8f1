"""What FastAPI's peers check and answer with."""

from __future__ import annotations

import datetime

from pydantic import BaseModel, ConfigDict, Field


class NewBook(BaseModel):
    """What a book is added from."""

    title: str = Field(min_length=1, max_length=200)
    author: str = Field(min_length=1, max_length=200)
    published_date: datetime.date | None = None
    isbn: str | None = Field(default=None, pattern=r"^([0-9]{13}|[0-9]{9}[0-9X])$")
    stock_quantity: int = Field(default=0, ge=0)


class BookView(BaseModel):
    """A book as it goes out."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    author: str
    published_date: datetime.date | None
    isbn: str | None
    stock_quantity: int


class BooksView(BaseModel):
    """A page of them, and the title after which the next one begins."""

    items: list[BookView]
    next: str | None

"""A product, the change of its stock and its addition, for the servers of ``benchmarks.updates``.

``DATABASE_URL`` is a URL of PostgreSQL, or, for diptych, of SQLite. With ``DOCUMENTS`` set, a product has a further
column, of JSONB or JSON.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from benchmarks.peers.asgi import Receive, Scope, Send

PRODUCTS = 1000
HAS_DOCUMENTS = bool(os.environ.get("DOCUMENTS"))
ATTRIBUTES = {"colours": ["red", "blue"], "weight": 1.25, "maker": {"name": "Acme", "country": "FR"}}


class Base(DeclarativeBase):
    pass


class Product(Base):
    __tablename__ = "products"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(100), unique=True)
    maker: Mapped[str] = mapped_column(sa.String(100))
    stock: Mapped[int]
    if HAS_DOCUMENTS:
        attributes: Mapped[Any] = mapped_column(sa.JSON().with_variant(JSONB(), "postgresql"))


class NewStock(msgspec.Struct):
    """The body of a request: ``PUT /products/{name}``."""

    stock: int


class NewProduct(msgspec.Struct):
    """The body of a request: ``POST /products``."""

    name: str
    maker: str
    stock: int


class Answer(msgspec.Struct):
    """The body of an answer."""

    id: int
    name: str
    maker: str
    stock: int
    attributes: Any = None


def name_of(number: int) -> str:
    return f"product-{number}"


def product(number: int) -> dict[str, Any]:
    """A product of the table, but for its id."""
    values = {"name": name_of(number), "maker": f"maker {number % 97}", "stock": 1}
    return values | ({"attributes": ATTRIBUTES} if HAS_DOCUMENTS else {})


_decoder = msgspec.json.Decoder(NewStock)
_product_decoder = msgspec.json.Decoder(NewProduct)
_encoder = msgspec.json.Encoder()


async def serve(
    scope: Scope,
    receive: Receive,
    send: Send,
    change: Callable[[str, int], Awaitable[Answer | None]],
    add: Callable[[NewProduct], Awaitable[Answer]] | None = None,
) -> None:
    """Answers a PUT by ``change(name, stock)``, 404 for None, and a POST by ``add``. A GET is answered at once."""
    status, body = 200, b"{}"
    if scope["method"] != "GET":
        message = await receive()
        given = message.get("body", b"")
        while message.get("more_body"):
            message = await receive()
            given += message.get("body", b"")
        if add is not None and scope["method"] == "POST":
            answer: Answer | None = await add(_product_decoder.decode(given))
        else:
            answer = await change(scope["path"].rpartition("/")[2], _decoder.decode(given).stock)
        status, body = (404, b"{}") if answer is None else (200, _encoder.encode(answer))
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

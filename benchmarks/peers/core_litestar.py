"""The transaction of ``core_by_hand`` behind Litestar, which the catalogue's commands go through too."""

from __future__ import annotations

from litestar import Litestar, get, post

from benchmarks.peers.core_by_hand import BookDocument, NewBook, add, engine


@get(["/books", "/books/{title:str}"])
async def books() -> dict[str, str]:
    return {}  # it is asked whether it is there


@post("/books/action/add")
async def add_book(data: NewBook) -> BookDocument:
    return await add(data)


app = Litestar([books, add_book], on_shutdown=[engine.dispose], openapi_config=None, logging_config=None)

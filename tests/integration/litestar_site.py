"""The application that `test_litestar.py` serves."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

from litestar import Litestar, Request, asgi, delete, get, post
from litestar.di import NamedDependency
from litestar.exceptions import HTTPException
from litestar.params import FromPath, FromQuery
from litestar.static_files import create_static_files_router
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych.app import Diptych
from diptych.context import correlation_id, request_scope
from diptych.errors import ConstraintError, Fault, InvalidMessage, UnavailableError
from diptych.ext.litestar import DiptychPlugin, asgi_app
from diptych.http import Problem, read_fields
from diptych.messages.message import Query

MAX_BODY_BYTES = 1 << 20


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)


class CorrelationId(Query[str | None], frozen=True):
    pass


class Handler:
    async def correlation_id(self, query: CorrelationId) -> str | None:
        return correlation_id(request_scope.get())


class ToldDiptych(Diptych):
    """Says when it has stopped."""

    async def stop(self) -> None:
        await super().stop()
        print("diptych stopped", flush=True)  # noqa: T201


@get("/books")
async def books() -> str:
    return "list"


@get("/books/{title:str}")
async def book(title: FromPath[str]) -> str:
    return f"book {title}"


@get("/books/{title:str}/edit")
async def edit_form(title: FromPath[str]) -> str:
    return f"edit {title}"


@delete("/books/{title:str}/delete")
async def delete_book(title: FromPath[str]) -> None: ...


@get("/books/action/add")
async def add_form() -> str:
    return "add form"


@post("/books/action/add", status_code=200)
async def add_book(request: Request[Any, Any, Any]) -> dict[str, Any]:
    fields = await read_fields(request.scope, request.receive, MAX_BODY_BYTES)
    if blank := [Fault(name, "must not be blank") for name, value in fields.values.items() if value == ""]:
        raise InvalidMessage("AddBook", blank)
    return {"values": fields.values, "is_form": fields.is_form}


@get("/orders/{number:int}")
async def order(number: FromPath[int]) -> str:
    return f"order {number}"


@get("/context")
async def context(diptych: NamedDependency[Diptych]) -> dict[str, Any]:
    return {"answer": await diptych.ask(CorrelationId())}


@get("/broken")
async def broken() -> None:
    raise RuntimeError("hunter2")


@get("/refused")
async def refused() -> None:
    raise UnavailableError("hunter2", 3)


@get("/teapot")
async def teapot() -> None:
    raise HTTPException("short and stout", status_code=418)


@get("/unrenderable")
async def unrenderable() -> None:
    raise ConstraintError("Book", [], "hunter2")


@get("/number")
async def number(n: FromQuery[int]) -> int:
    return n


@asgi("/mounted", is_mount=True, copy_scope=True)
async def mounted(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"mounted {scope['path']}".encode()})


def render_problem(problem: Problem, request: Request[Any, Any, Any]) -> str:
    if problem.status == 409:
        raise LookupError("no such template")
    return f"<h1>{html.escape(problem.title)}</h1>"


static = create_static_files_router("/static", [Path(__file__).parent / "static"])
handlers = [books, book, edit_form, delete_book, add_form, add_book, order, context]
faulty = [broken, refused, teapot, unrenderable, number]
plugin = DiptychPlugin(ToldDiptych(models=Base, handlers=[Handler]), render_problem=render_problem)
site = Litestar([*handlers, *faulty, mounted, static], plugins=[plugin], openapi_config=None)
app = asgi_app(site)

"""Messages, documents and pages as models of FastAPI, without anything of diptych but their types."""

from __future__ import annotations

import dataclasses
import datetime
import json
from typing import Annotated, Any

import httpx
import msgspec
import pydantic
import pytest
from fastapi import FastAPI
from msgspec import Meta, Struct
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Command, CommandOf, Document, Health, Page, PageOf, ReadModel, Rule, Served
from diptych.health import NO_REDIS, SqlHealth


class Base(DeclarativeBase):
    pass


class Book(Base):
    __tablename__ = "books"
    title: Mapped[str] = mapped_column(primary_key=True)


class Tag(Struct):
    name: str
    within: Tag | None = None


class BookDocument(Struct):
    title: str
    tags: list[Tag]


class Books(ReadModel[Book]):
    key = Book.title
    document = BookDocument


class AuthorFields(Struct):
    name: str


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


class AddBook(Command[int]):
    """Adds a book."""

    title: Annotated[str, Meta(min_length=1, max_length=40), Rule(not_blank)]
    author: AuthorFields
    published: datetime.date | None = None
    tags: list[str] = []  # noqa: RUF012 - msgspec copies it


@dataclasses.dataclass(frozen=True)
class Move(CommandOf[bool]):
    title: str
    shelf: int = 1


EMMA = BookDocument("Emma", [Tag("novel", Tag("prose"))])
BODY = b'{"title":"Emma", "tags":[]}'


app = FastAPI()


@app.post("/books")
async def add(command: AddBook) -> dict[str, str]:
    return {"got": f"{command.title}/{command.author.name}/{command.published}"}


@app.post("/moves")
async def move(command: Move) -> dict[str, int]:
    return {"shelf": command.shelf}


@app.get("/book")
async def book() -> Document[BookDocument]:
    return Document(BODY, Served("redis"), BookDocument)


@app.get("/books")
async def books() -> Page[BookDocument]:
    return Page(b'{"items":[%s],"next":null}' % BODY, Served("redis"), BookDocument)


@app.get("/decoded")
async def decoded() -> BookDocument:
    return EMMA


@app.get("/decoded-page")
async def decoded_page() -> PageOf[BookDocument]:
    return PageOf([EMMA], None)


@app.get("/health")
async def health() -> Health:
    return Health("ok", SqlHealth("up", "sqlite"), NO_REDIS, {})


@pytest.fixture
def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://books.example")


async def test_a_message_is_the_body(client: httpx.AsyncClient):
    sent = {"title": " Emma ", "author": {"name": "Jane Austen"}, "published": "1815-12-23"}
    answer = await client.post("/books", json=sent)
    assert (answer.status_code, answer.json()) == (200, {"got": "Emma/Jane Austen/1815-12-23"})
    assert (await client.post("/moves", json={"title": "Emma"})).json() == {"shelf": 1}


@pytest.mark.parametrize(
    ("path", "sent", "says"),
    [
        ("/books", {"author": {"name": "x", "age": 3}}, "author.age is not a known field"),
        ("/books", {"author": {"name": "x", "age": 3}}, "title is missing"),
        ("/books", {"title": " ", "author": {"name": "x"}}, "title must not be blank"),
        ("/books", [], "must be a JSON object"),
        ("/moves", {"title": "Emma", "row": 1}, "row is not a known field"),
        ("/moves", {"title": "Emma", "shelf": "1"}, "shelf must be a whole number"),
    ],
)
async def test_it_is_made_by_the_rules_of_build(client: httpx.AsyncClient, path: str, sent: Any, says: str):
    answer = await client.post(path, json=sent)
    assert answer.status_code == 422
    assert says in answer.text


async def test_documents_pages_and_health_are_sent_as_json(client: httpx.AsyncClient):
    whole = {"title": "Emma", "tags": [{"name": "novel", "within": {"name": "prose", "within": None}}]}
    assert (await client.get("/book")).json() == json.loads(BODY)
    assert (await client.get("/books")).json() == {"items": [json.loads(BODY)], "next": None}
    assert (await client.get("/decoded")).json() == whole
    assert (await client.get("/decoded-page")).json() == {
        **{"items": [whole], "next": None},
        **{"previous": None, "total": None},
    }
    assert (await client.get("/health")).json()["sql"] == {"state": "up", "engine": "sqlite"}


def answered(path: str, method: str = "get") -> Any:
    return app.openapi()["paths"][path][method]["responses"]["200"]["content"]["application/json"]["schema"]


def test_their_schemas_are_in_the_openapi_document():
    schemas = app.openapi()["components"]["schemas"]
    sent = app.openapi()["paths"]["/books"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert sent == {"$ref": "#/components/schemas/AddBook"}
    assert schemas["AddBook"] == {
        "title": "AddBook",
        "description": "Adds a book.",
        "type": "object",
        "properties": {
            "title": {"type": "string", "minLength": 1, "maxLength": 40},
            "author": {"$ref": "#/components/schemas/AuthorFields"},
            "published": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["title", "author"],
        "additionalProperties": False,
    }
    assert schemas["AuthorFields"]["additionalProperties"] is False
    assert schemas["Move"]["additionalProperties"] is False
    assert answered("/decoded") == {"$ref": "#/components/schemas/BookDocument"}
    assert answered("/book")["anyOf"] == [
        answered("/decoded"),
        {"type": "null"},
    ]  # null, if there is no such row
    assert schemas["BookDocument"]["properties"]["tags"]["items"] == {"$ref": "#/components/schemas/Tag"}
    page = schemas[answered("/books")["$ref"].rpartition("/")[2]]
    assert page["properties"]["items"]["items"] == {"$ref": "#/components/schemas/BookDocument"}
    assert answered("/health") == {"$ref": "#/components/schemas/Health"}
    assert "RedisHealth" in schemas
    assert not [name for name in schemas if "__" in name]


def test_a_type_that_is_within_itself_refers_to_itself():
    tag = app.openapi()["components"]["schemas"]["Tag"]
    assert tag["properties"]["within"]["anyOf"][0] == {"$ref": "#/components/schemas/Tag"}


def test_two_structs_of_one_name_are_told_apart():
    tag = msgspec.defstruct("Tag", [("number", int)])

    class Shelves(ReadModel[Book]):
        key = Book.title
        document = msgspec.defstruct("Shelf", [("tag", tag)])

    both: Any = pydantic.TypeAdapter(tuple[BookDocument, Shelves.document])  # type: ignore[valid-type]
    definitions = both.json_schema()["$defs"]
    tags = [schema for name, schema in definitions.items() if name.startswith("Tag")]
    assert sorted(len(tag["properties"]) for tag in tags) == [1, 2]


def test_a_struct_that_is_a_message_is_a_dataclass_for_those_that_ask():
    command = AddBook(title="Emma", author=AuthorFields("Jane"))
    assert [field.name for field in dataclasses.fields(command)] == ["title", "author", "published", "tags"]
    assert dataclasses.replace(command, title="Dune").title == "Dune"
    assert dataclasses.asdict(command)["published"] is None


async def test_a_document_inside_another_model_is_told_as_json():
    class Shown(pydantic.BaseModel):
        book: Document[BookDocument]

    shown = Shown(book=Document(BODY, Served("redis"), BookDocument))
    assert json.loads(shown.model_dump_json()) == {"book": json.loads(BODY)}
    with pytest.raises(pydantic.ValidationError, match="must be a Document"):
        Shown(book={"title": "Emma"})  # type: ignore[arg-type]

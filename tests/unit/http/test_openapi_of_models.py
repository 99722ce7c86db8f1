"""The OpenAPI document of endpoints whose messages are models of pydantic and dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import openapi_spec_validator
from pydantic import BaseModel, Field

from diptych import Command, CommandOf, Document, QueryOf
from diptych.http import Endpoint, openapi_document


class Author(BaseModel):
    name: str


class AddBook(BaseModel, CommandOf[int]):
    """Adds a book."""

    title: str = Field(min_length=1)
    author: Author | None = None
    shelf: str = Field(default="A", alias="shelfName")


@dataclass(frozen=True)
class GetBook(QueryOf[Document[dict]]):  # type: ignore[type-arg]
    title: str
    edition: int = 1


def test_their_fields_are_shown_like_those_of_structs():
    endpoints = [
        Endpoint("POST", "/books", AddBook, status=201, location="/books/{title}"),
        Endpoint("GET", "/books/{title}", GetBook),
    ]
    document = openapi_document(endpoints, title="Books", version="1")
    openapi_spec_validator.validate(document)
    body = document["paths"]["/books"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(body["properties"]) == ["title", "author", "shelfName"]
    assert (body["required"], body["additionalProperties"]) == (["title"], False)
    assert body["properties"]["title"]["minLength"] == 1
    assert "Author" in document["components"]["schemas"]
    parameters = document["paths"]["/books/{title}"]["get"]["parameters"]
    assert [(one["name"], one["in"]) for one in parameters] == [("title", "path"), ("edition", "query")]


class InCities:
    class Where(BaseModel):
        city: str


class OnEarth:
    class Where(BaseModel):
        latitude: float


class InHotels:
    class Where(msgspec.Struct):
        room: int


class Go(BaseModel, CommandOf[int]):
    where: InCities.Where


class Come(BaseModel, CommandOf[int]):
    where: OnEarth.Where


class Stay(Command[int]):
    where: InHotels.Where


def test_nested_types_of_one_name_have_their_own_schemas():
    endpoints = [Endpoint("POST", f"/{kind.__name__}", kind) for kind in (Go, Come, Stay)]
    document = openapi_document(endpoints, title="Ways", version="1")
    openapi_spec_validator.validate(document)
    found = {}
    for path, operations in document["paths"].items():
        body = operations["post"]["requestBody"]["content"]["application/json"]["schema"]
        name = body["properties"]["where"]["$ref"].rpartition("/")[2]
        found[path] = list(document["components"]["schemas"][name]["properties"])
    assert found == {"/Go": ["city"], "/Come": ["latitude"], "/Stay": ["room"]}

"""The OpenAPI document of endpoints whose messages are models of pydantic and dataclasses."""

from __future__ import annotations

from dataclasses import dataclass

import openapi_spec_validator
from pydantic import BaseModel, Field

from diptych import CommandOf, Document, QueryOf
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

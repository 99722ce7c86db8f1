"""Endpoints whose messages are models of pydantic with aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from sqlalchemy.orm import DeclarativeBase

from diptych import CommandOf, ConfigService, Diptych, QueryOf
from diptych.http import Endpoint, endpoints_app
from tests.integration.http_suite.applications import running


class Base(DeclarativeBase):
    pass


class Rename(BaseModel, CommandOf[int]):
    model_config = ConfigDict(alias_generator=to_camel)

    ticket_code: str


class Find(BaseModel, QueryOf[str]):
    ticket_code: str = Field(validation_alias=AliasChoices(AliasPath("ticket", "code"), "code", "ticketCode"))


class Handlers:
    async def rename(self, command: Rename) -> int:
        return 1

    async def find(self, query: Find) -> str:
        return query.ticket_code


ENDPOINTS = (
    Endpoint("POST", "/renamed", Rename, status=201, location="/tickets/{ticketCode}"),
    Endpoint("GET", "/tickets", Find),
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    config = ConfigService(environ={}, database_url=f"sqlite:///{tmp_path / 'tickets.db'}")
    async with running(
        endpoints_app(Diptych(config, models=Base, handlers=[Handlers]), ENDPOINTS, title="Tickets")
    ) as client:
        yield client


async def test_a_location_has_the_value_of_a_field_with_an_alias(client: httpx.AsyncClient):
    answer = await client.post("/renamed", json={"ticketCode": "a/b"})
    assert (answer.status_code, answer.headers["location"]) == (201, "/tickets/a%2Fb")


async def test_of_several_aliases_the_first_is_the_name_of_the_parameter(client: httpx.AsyncClient):
    assert (await client.get("/tickets?code=x")).json() == "x"
    document = (await client.get("/openapi.json")).json()
    assert [one["name"] for one in document["paths"]["/tickets"]["get"]["parameters"]] == ["code"]

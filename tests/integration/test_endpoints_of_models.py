"""Endpoints whose messages are models of pydantic with aliases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from msgspec import Struct
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Command, CommandOf, ConfigService, Diptych, ORMService, QueryOf, code_point_text
from diptych.http import Endpoint, endpoints_app
from tests.integration.http_suite.applications import running


class Base(DeclarativeBase):
    pass


class Ticket(Base):
    __tablename__ = "tickets_of_models"

    id: Mapped[int] = mapped_column(primary_key=True)
    ticket_code: Mapped[str] = mapped_column("code_col", code_point_text(5), unique=True)
    seat_count: Mapped[int] = mapped_column("seat_count_col", default=0)


class Add(BaseModel, CommandOf[None]):
    model_config = ConfigDict(alias_generator=to_camel)

    ticket_code: str
    seats: int = 0


class Seats(Struct):
    seat_count: int


class Resize(Command[bool]):
    ticket_code: str
    seats: Seats


class Rename(BaseModel, CommandOf[int]):
    model_config = ConfigDict(alias_generator=to_camel)

    ticket_code: str


class Find(BaseModel, QueryOf[str]):
    ticket_code: str = Field(validation_alias=AliasChoices(AliasPath("ticket", "code"), "code", "ticketCode"))


@dataclass
class Booked:
    number: int


class Book(Command[Booked | None]):
    ticket_code: str


class Handlers:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def add(self, command: Add) -> None:
        await self.orm.create(Ticket, ticket_code=command.ticket_code, seat_count=command.seats)

    async def resize(self, command: Resize) -> bool:
        fields = {"ticket_code": command.ticket_code, "seat_count": command.seats.seat_count}
        await self.orm.create(Ticket, **fields)
        return True

    async def rename(self, command: Rename) -> int:
        return 1

    async def book(self, command: Book) -> Booked | None:
        return Booked(7)

    async def find(self, query: Find) -> str:
        return query.ticket_code


ENDPOINTS = (
    Endpoint("POST", "/renamed", Rename, status=201, location="/tickets/{ticketCode}"),
    Endpoint("POST", "/booked", Book, status=201, location="/tickets/{ticket_code}/{number}"),
    Endpoint("GET", "/tickets", Find),
    Endpoint("POST", "/tickets", Add),
    Endpoint("PUT", "/tickets/{ticket_code}", Resize, body="seats"),
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


async def test_a_location_has_the_fields_of_a_result_that_is_a_dataclass(client: httpx.AsyncClient):
    answer = await client.post("/booked", json={"ticket_code": "A"})
    assert (answer.json(), answer.headers["location"]) == ({"number": 7}, "/tickets/A/7")


TOO_LONG, TOO_MANY = "must have at most 5 characters", "must be at most 2147483647"


async def test_what_a_column_refuses_is_named_by_the_field_of_the_request(client: httpx.AsyncClient):
    """Without a place where no field has the name of the attribute."""
    answer = await client.post("/tickets", json={"ticketCode": "too long", "seats": 2**31})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "ticketCode", "detail": TOO_LONG, "pointer": "#/ticketCode"},
        {"field": "seat_count", "detail": TOO_MANY},
    ]
    assert (await client.post("/tickets", json={"ticketCode": "A"})).status_code == 204
    taken = (await client.post("/tickets", json={"ticketCode": "A"})).json()
    assert taken["errors"] == [
        {"field": "ticketCode", "detail": "is already taken", "pointer": "#/ticketCode"}
    ]
    assert taken["columns"] == ["ticket_code"]


async def test_what_a_column_refuses_is_a_parameter_or_a_field_of_the_whole_body(client: httpx.AsyncClient):
    answer = await client.put("/tickets/too%20long", json={"seat_count": 2**31})
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"field": "ticket_code", "detail": TOO_LONG, "parameter": "ticket_code"},
        {"field": "seat_count", "detail": TOO_MANY, "pointer": "#/seat_count"},
    ]


async def test_of_several_aliases_the_first_is_the_name_of_the_parameter(client: httpx.AsyncClient):
    assert (await client.get("/tickets?code=x")).json() == "x"
    document = (await client.get("/openapi.json")).json()
    assert [one["name"] for one in document["paths"]["/tickets"]["get"]["parameters"]] == ["code"]

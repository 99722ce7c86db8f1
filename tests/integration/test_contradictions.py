"""Fields that an endpoint's path and its body both have: they are compared as values of their types."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import DeclarativeBase

from diptych import Command, CommandOf, ConfigService, Diptych, Rule
from diptych.http import Endpoint, endpoints_app
from tests.integration.http_suite.applications import running

ID = "a3bb189e-8bf9-4c28-9b7e-0d2f6c1d5f00"


class Base(DeclarativeBase):
    pass


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


def _lower(text: str) -> str:
    return text.lower()


class Mark(Command[int]):
    price: Decimal = Decimal(1)
    weight: float = 1.0
    is_on: bool = True
    id: uuid.UUID = uuid.UUID(ID)
    day: datetime.date = datetime.date(2026, 1, 1)
    level: Level = Level.LOW
    count: int = 1
    name: Annotated[str, Rule(_lower)] = ""


class MarkModel(BaseModel, CommandOf[int]):
    model_config = ConfigDict(frozen=True)

    unit_price: Decimal = Field(alias="price")
    is_on: bool = True
    count: int = Field(1, ge=0)


class Handlers:
    async def mark(self, command: Mark) -> int:
        return 1

    async def mark_model(self, command: MarkModel) -> int:
        return 1


FIELDS = ("price", "weight", "is_on", "id", "day", "level", "count", "name")
ENDPOINTS = (
    *(Endpoint("POST", f"/{name}/{{{name}}}", Mark, form=True) for name in FIELDS),
    Endpoint("POST", "/models/{price}/{is_on}", MarkModel),
)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    config = ConfigService(environ={}, database_url=f"sqlite:///{tmp_path / 'marks.db'}")
    async with running(endpoints_app(Diptych(config, models=Base, handlers=[Handlers]), ENDPOINTS)) as client:
        yield client


def told(answer: httpx.Response) -> list[tuple[str, ...]]:
    return [tuple(error.values()) for error in answer.json()["errors"]] if answer.status_code != 200 else []


@pytest.mark.parametrize(
    ("name", "in_path", "same", "other"),
    [
        ("price", "1.50", [1.5, "1.5", "1.50"], [1.25, "2", 2, "sNaN"]),
        ("weight", "2", [2, 2.0], [2.5]),
        ("is_on", "1", [True], [False]),
        ("id", ID.upper(), [ID], [ID.replace("a", "b")]),
        ("day", "2026-12-01", ["2026-12-01"], ["2026-12-02"]),
        ("level", "2", [2], [1]),
        ("count", "7", [7, "7"], [8]),
        ("name", "Emma", ["emma", "EMMA"], ["Anna"]),
    ],
)
async def test_path_and_body_are_compared_as_values_of_the_field(
    name: str, in_path: str, same: list[Any], other: list[Any], client: httpx.AsyncClient
):
    for value in same:
        assert told(await client.post(f"/{name}/{in_path}", json={name: value})) == [], value
    for value in other:
        answer = await client.post(f"/{name}/{in_path}", json={name: value, "colour": 1})
        assert set(told(answer)) == {
            (name, "contradicts the path", f"#/{name}"),
            ("colour", "is not a known field", "#/colour"),
        }, value


async def test_a_form_is_compared_as_it_is_read(client: httpx.AsyncClient):
    assert told(await client.post("/is_on/1", data={"is_on": "true"})) == []
    assert told(await client.post("/is_on/1", data={"is_on": "false"})) == [
        ("is_on", "contradicts the path", "#/is_on")
    ]


async def test_what_can_not_be_read_contradicts_what_can(client: httpx.AsyncClient):
    for value in ("x", 1.5, True, None, [7]):
        assert told(await client.post("/count/7", json={"count": value})) == [
            ("count", "contradicts the path", "#/count")
        ], value
    assert told(await client.post("/count/x", json={"count": 7})) == [
        ("count", "must be a whole number", "count")
    ]


async def test_fields_of_a_model_are_compared_as_its_values(client: httpx.AsyncClient):
    path = "/models/1.50/true"
    assert told(await client.post(path, json={"price": 1.5, "is_on": True})) == []
    assert told(await client.post(path, json={"price": 2, "is_on": False})) == [
        ("price", "contradicts the path", "#/price"),
        ("is_on", "contradicts the path", "#/is_on"),
    ]
    assert [error[::2] for error in told(await client.post(path, json={"price": "x"}))] == [
        ("price", "#/price")
    ]
    refused = told(await client.post(path, json={"price": 2, "count": -1}))
    assert [error[::2] for error in refused] == [("count", "#/count")]

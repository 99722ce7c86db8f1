"""Messages that no request can make are refused where their endpoints and routes are declared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from fastapi import FastAPI
from pydantic import AliasPath, BaseModel, Field

from diptych import Command, CommandOf, WiringError
from diptych.http import Endpoint, openapi_document


class Address(BaseModel):
    city: str


class Place(msgspec.Struct):
    addresses: list[Address] | None = None


class Move(Command[int]):
    address: Address


class Within(Command[int]):
    places: dict[str, Annotated[Place, "a place"]] = {}  # noqa: RUF012


@dataclass(frozen=True)
class MoveData(CommandOf[int]):
    address: Address


class Token:
    """A type that only the application knows."""


class Take(Command[int]):
    token: Token


class Offer(Command[int]):
    name: str
    token: Token | None = None


class Deep(BaseModel, CommandOf[int]):
    code: str = Field(validation_alias=AliasPath("ticket", "code"))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (Move, "Move.address, of the type Address,"),
        (MoveData, "MoveData.address, of the type Address,"),
        (Within, "Place.addresses, of the type Address,"),
        (Take, "Take.token, of the type Token,"),
        (Deep, "Deep.code, by its alias of several steps,"),
    ],
)
def test_a_message_that_no_request_can_make_is_refused_by_name(message: Any, field: str):
    with pytest.raises(WiringError, match=f"POST /moved: {field} can't be made of a request"):
        openapi_document([Endpoint("POST", "/moved", message)], title="Moves", version="1")


def test_a_field_that_only_the_application_sets_is_shown_all_the_same():
    document = openapi_document([Endpoint("POST", "/offers", Offer)], title="Offers", version="1")
    body = document["paths"]["/offers"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert list(body["properties"]) == ["name", "token"]


@pytest.mark.parametrize("message", [Move, MoveData, Within])
def test_a_route_of_fastapi_refuses_such_a_body_with_a_remedy(message: Any):
    app = FastAPI()

    async def move(command: Any) -> None: ...

    move.__annotations__["command"] = message
    with pytest.raises(WiringError, match=f"{message.__name__}'> is no body .* make the message one too"):
        app.post("/moved")(move)

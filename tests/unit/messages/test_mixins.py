"""Messages that are models of pydantic, or dataclasses."""

from __future__ import annotations

import dataclasses
import datetime
from dataclasses import InitVar, dataclass
from typing import Annotated, Any, Generic, TypeVar

import msgspec
import pydantic
import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from diptych.errors import InvalidMessage, WiringError
from diptych.messages.handlers import Bus
from diptych.messages.message import Command, Query, Rule, build
from diptych.messages.mixins import CommandOf, QueryOf

T = TypeVar("T")


def not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text.strip()


class Author(BaseModel):
    name: str


class AddBook(BaseModel, CommandOf[int]):
    title: Annotated[str, Field(min_length=1)]
    published: datetime.date | None = None
    author: Author | None = None
    pages: int | list[int] = 0

    @field_validator("title")
    @classmethod
    def is_not_blank(cls, title: str) -> str:
        return not_blank(title)


class Strict(BaseModel, CommandOf[None]):
    model_config = ConfigDict(strict=True)

    on: datetime.date
    count: int


class Open(BaseModel, CommandOf[None]):
    model_config = ConfigDict(extra="allow")


class Renamed(BaseModel, CommandOf[None]):
    sku: str = Field(alias="stockKeepingUnit")


@dataclass(frozen=True)
class Place:
    shelf: Annotated[str, Rule(not_blank)]
    number: int = 1


@dataclass(frozen=True, slots=True)
class Move(CommandOf[bool]):
    title: Annotated[str, msgspec.Meta(min_length=1)]
    to: Place
    on: datetime.date | None = None
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclass(frozen=True)
class GetBook(QueryOf[str]):
    title: Annotated[str, Rule(not_blank)]
    edition: int = 1


def faults_of(kind: Any, fields: dict[str, Any], **options: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidMessage) as raised:
        build(kind, fields, **options)
    assert raised.value.message == kind.__name__
    return [(fault.field, fault.detail) for fault in raised.value.faults]


def test_a_model_is_built_from_json_and_frozen():
    command = build(
        AddBook, {"title": " Emma ", "published": "1815-12-23", "author": {"name": "Jane Austen"}}
    )
    assert command == AddBook(
        title="Emma", published=datetime.date(1815, 12, 23), author=Author(name="Jane Austen")
    )
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        command.title = "Dune"


def test_all_faults_of_a_model_are_named_by_their_paths():
    fields = {"title": "", "published": "never", "author": {}, "pages": [1, "x"], "colour": "red"}
    assert faults_of(AddBook, fields) == [
        ("colour", "is not a known field"),
        ("title", "must have at least 1 character"),
        ("published", "must be a valid date or datetime, input is too short"),
        ("author.name", "is missing"),
        ("pages", "must be a valid integer"),
        ("pages.1", "must be a valid integer, unable to parse string as an integer"),
    ]
    assert faults_of(AddBook, {}) == [("title", "is missing")]
    assert faults_of(AddBook, {"title": " "}) == [("title", "must not be blank")]


def test_of_many_unknown_fields_twenty_are_named():
    faults = faults_of(AddBook, {"title": "Emma", **{f"x{n}": 1 for n in range(30)}})
    assert len(faults) == 21
    assert faults[-1] == ("", "… and 10 more unknown fields")


def test_a_strict_model_takes_what_json_has_no_type_for_and_the_texts_of_a_form():
    expected = Strict(on=datetime.date(2024, 1, 2), count=3)
    assert build(Strict, {"on": "2024-01-02", "count": 3}) == expected
    assert build(Strict, {"on": "2024-01-02", "count": "3"}, text=True) == expected
    assert [field for field, _ in faults_of(Strict, {"on": "2024-01-02", "count": "3"})] == ["count"]


def test_the_configuration_of_a_model_decides_on_unknown_fields():
    assert build(Open, {"x": 1}).model_extra == {"x": 1}


def test_a_model_is_built_by_its_aliases():
    assert build(Renamed, {"stockKeepingUnit": "A1"}).sku == "A1"
    assert faults_of(Renamed, {"sku": "A1"}) == [
        ("sku", "is not a known field"),
        ("stockKeepingUnit", "is missing"),
    ]


def test_a_dataclass_is_built_like_a_struct():
    command = build(Move, {"title": "Emma", "to": {"shelf": " A "}, "on": "2024-01-02", "tags": ["x"]})
    assert command == Move("Emma", Place("A"), datetime.date(2024, 1, 2), ["x"])
    assert build(GetBook, {"title": "Emma", "edition": "2"}, text=True) == GetBook("Emma", 2)


def test_all_faults_of_a_dataclass_are_named_by_their_paths():
    fields = {"title": "", "to": {"number": "x", "row": 1}, "tags": ["x", 1], "colour": "red"}
    assert faults_of(Move, fields) == [
        ("colour", "is not a known field"),
        ("title", "must not be empty"),
        ("to.row", "is not a known field"),
        ("to.shelf", "is missing"),
        ("to.number", "must be a whole number"),
        ("tags.1", "must be text"),
    ]


def test_a_dataclass_is_checked_at_its_construction_too():
    assert GetBook(" Emma ").title == "Emma"
    with pytest.raises(InvalidMessage, match="GetBook: title must not be blank"):
        GetBook(" ")
    with pytest.raises(InvalidMessage, match=r"to\.number must be a whole number"):
        Move("Emma", Place("A", "x"))  # type: ignore[arg-type]


async def test_the_bus_finds_their_handlers():
    class Handlers:
        async def add(self, command: AddBook) -> int:
            return len(command.title)

        async def move(self, command: Move) -> bool:
            return bool(command.to)

        async def get(self, query: GetBook) -> str:
            return query.title

        async def strict(self, command: Strict) -> None: ...

        async def open(self, command: Open) -> None: ...

        async def rename(self, command: Renamed) -> None: ...

    bus = Bus([Handlers], {})
    assert await bus.handler_of(AddBook)(AddBook(title="Emma")) == 4
    assert await bus.handler_of(Move)(Move("Emma", Place("A"))) is True
    assert list(bus.queries()) == [GetBook]


def problems_of(handler: type) -> tuple[str, ...]:
    with pytest.raises(WiringError) as raised:
        Bus([handler], {})
    return raised.value.problems


def test_a_handler_returns_what_the_mixin_promises_and_every_message_has_one():
    class Add(BaseModel, CommandOf[int]):
        title: str

    @dataclass(frozen=True)
    class Remove(CommandOf[bool]):
        title: str

    class Handlers:
        async def add(self, command: Add) -> str:
            return command.title

    Handlers.add.__annotations__ = {"command": Add, "return": str}
    assert problems_of(Handlers) == (
        "Handlers.add returns str, but Add promises int: make them the same",
        *(
            f"the command {name} has no handler: add `async def …(self, command: {name})` to a class in "
            "Diptych(handlers=[…])"
            for name in ("Add", "Remove")
        ),
    )


class Refused:
    """A scope of their own: each is handled by itself."""

    class AsStruct(msgspec.Struct, CommandOf[int]):
        title: str

    class AsNothing(CommandOf[int]):
        title: str

    class Thawed(BaseModel, QueryOf[int]):
        model_config = ConfigDict(frozen=False)

    class Both(BaseModel, CommandOf[int], QueryOf[int]):
        pass

    class BothKinds(Command[int], QueryOf[int]):
        pass

    @pydantic_dataclass(frozen=True)
    class AsPydanticDataclass(CommandOf[int]):
        title: str

    @dataclass
    class ThawedDataclass(CommandOf[int]):
        title: str

    class Undecorated(GetBook):
        more: str

    @dataclass(frozen=True)
    class WithInitVar(CommandOf[int]):
        title: str
        extra: InitVar[int] = 0

    @dataclass(frozen=True)
    class Unchecked(CommandOf[int]):
        when: datetime.date | datetime.datetime


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        (Refused.AsStruct, "with the mixin CommandOf, is a struct: derive it from Command"),
        (Refused.AsNothing, "is neither a model of pydantic 2 nor a dataclass: make it one of them"),
        (Refused.Thawed, "with the mixin QueryOf, is not frozen"),
        (Refused.Both, "is both a command and a query"),
        (Refused.BothKinds, "is both a command and a query"),
        (Refused.AsPydanticDataclass, "is a dataclass of pydantic: derive it from pydantic.BaseModel"),
        (Refused.ThawedDataclass, "is not frozen, and a message may be handled twice: write @dataclass"),
        (Refused.Undecorated, "is derived from a dataclass without being one"),
        (Refused.WithInitVar, "has a constructor with other parameters than its fields"),
        (
            Refused.Unchecked,
            "has a field that can't be checked: Type unions may not contain more than one str-like",
        ),
    ],
)
def test_what_can_not_be_a_message_is_refused_at_start_by_name(kind: type, fault: str):
    async def handle(self: object, message: object) -> int:
        return 0

    handle.__annotations__ = {"message": kind, "return": int}
    (problem,) = (text for text in problems_of(type("Handlers", (), {"handle": handle})) if fault in text)
    assert problem.startswith(kind.__name__)


def test_a_base_of_messages_needs_no_handler():
    class Page(BaseModel, QueryOf[T], Generic[T]):
        after: str | None = None

    class ListBooks(Page[int]):
        pass

    class Handlers:
        async def list(self, query: ListBooks) -> int:
            return 0

    Handlers.list.__annotations__ = {"query": ListBooks, "return": int}
    assert list(Bus([Handlers], {}).queries()) == [ListBooks]


def test_structs_are_queries_and_commands_as_before():
    class Ask(Query[int]):
        pass

    assert isinstance(Ask(), Query)
    assert not isinstance(Ask(), QueryOf)

"""What is an address is judged by the catalogue of the database, whatever the mapping says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import Diptych, Document, Query, ReadModel, WiringError, code_point_text
from diptych.read.address_checks import UNIQUE
from tests.captured import Program
from tests.catalogue import answered_by
from tests.configuration import configured

TOGETHER = (
    "must be unique together: by a primary key, a unique constraint or a unique index of just these columns, not "
    "deferrable"
)


class Rooms(DeclarativeBase):
    pass


class Slot(Rooms):
    """The mapping has more than some of the tables below have."""

    __tablename__ = "slots"
    __table_args__ = (sa.UniqueConstraint("room_name", "number"), sa.UniqueConstraint("number", "code"))

    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str] = mapped_column("room_name", code_point_text(20))
    number: Mapped[int]
    code: Mapped[str] = mapped_column(code_point_text(20), unique=True)


class SlotDocument(msgspec.Struct):
    id: int
    room: str
    number: int
    code: str


class GetSlot(Query[Document[SlotDocument]], frozen=True):
    room: str
    part: int | str


def slots(database_url: str, redis_url: str | None = None, **declared: Any) -> Any:
    model: Any = type("Slots", (ReadModel,), {"document": SlotDocument, **declared})

    class Handler:
        def __init__(self, slots: Any) -> None:
            self.slots = slots

        async def get(self, query: GetSlot) -> Document[SlotDocument]:
            found: Document[SlotDocument] = await self.slots.get((query.room, query.part))
            return found

    Handler.__init__.__annotations__["slots"] = model
    config = configured(database_url, redis_url, create_tables=False)
    return Diptych(config, models=Rooms, handlers=[Handler], read_models=[model])


TABLE = (
    "CREATE TABLE slots (id integer PRIMARY KEY, room_name {text} NOT NULL, number integer NOT NULL, "
    "code {text} NOT NULL{more})"
)
TOO_LITTLE = {
    "nothing": ("", []),
    "more columns": (", UNIQUE (room_name, number, code)", []),
    "a part of the rows": ("", ["CREATE UNIQUE INDEX one ON slots (room_name, number) WHERE number > 0",
        "CREATE UNIQUE INDEX other ON slots (code) WHERE number > 0"]),
    "an expression": ("", ["CREATE UNIQUE INDEX one ON slots (room_name, abs(number))",
        "CREATE UNIQUE INDEX other ON slots (lower(code))"]),
    "columns that are only stored in the index": ("", [
        "CREATE UNIQUE INDEX one ON slots (room_name, code) INCLUDE (number)"]),
    "deferrable": (", UNIQUE (room_name, number) DEFERRABLE, UNIQUE (code) DEFERRABLE", []),
}  # fmt: skip
ENOUGH = {
    "a constraint": (", UNIQUE (room_name, number)", []),
    "in another order": (", UNIQUE (number, room_name)", []),
    "an index": ("", ["CREATE UNIQUE INDEX one ON slots (number, room_name)"]),
    "names in other letters": (", UNIQUE (Room_Name, NUMBER)", []),
    "one column alone": ("", ["CREATE UNIQUE INDEX one ON slots (number)"]),
    "not in the mapping": (", UNIQUE (room_name, code)", []),
}


async def made(database_url: str, more: str, indexes: Sequence[str]) -> Program:
    program = Program(database_url)
    text = "text" if program.is_sqlite else 'text COLLATE "C"'
    await program.runs(TABLE.format(text=text, more=more), *indexes)
    return program


@pytest.mark.parametrize("case", TOO_LITTLE)
async def test_what_the_catalogue_does_not_hold_unique_is_no_address_whatever_the_mapping_says(
    database_url, case
):
    if database_url.startswith("sqlite") and case in (
        "deferrable",
        "columns that are only stored in the index",
    ):
        pytest.skip("SQLite has nothing of the kind")
    await made(database_url, *TOO_LITTLE[case])
    with pytest.raises(WiringError) as refusal:
        await slots(database_url, key=(Slot.room, Slot.number)).start()
    assert (
        f"Slots: the columns of the key, room, number, {TOGETHER}. The table slots has nothing like that (what is "
        "deferrable, partial or of an expression does not count): let a migration do "
        "`CREATE UNIQUE INDEX slots_room_name_number ON slots (room_name, number)`"
    ) in str(refusal.value)
    with pytest.raises(WiringError) as refusal:
        await slots(database_url, key=Slot.id, also=(Slot.code,)).start()
    assert f"Slots: `also`: 'code' {UNIQUE}. The table slots has nothing like that" in str(refusal.value)
    assert "`CREATE UNIQUE INDEX slots_code ON slots (code)`" in str(refusal.value)


@pytest.mark.parametrize("case", ENOUGH)
async def test_what_the_catalogue_holds_unique_is_an_address(database_url, valkey, case):
    """Also where some of the columns are unique already; a row that moves is found, and no more where it was."""
    program = await made(database_url, *ENOUGH[case])
    last = "code" if case == "not in the mapping" else "number"
    key = (Slot.room, getattr(Slot, last))
    async with slots(database_url, valkey.url, key=key) as app:

        async def at(room: str, row: int) -> int | None:
            found = await app.ask(GetSlot(room, row if last == "number" else f"x{row}"))
            assert found.served.store == "redis"
            return None if found.body is None else int(found.decode().id)

        await answered_by(app, "redis")
        await app.orm.create(Slot, id=1, room="a", number=1, code="x1")
        await app.orm.create(Slot, id=2, room="b", number=2, code="x2")
        assert [await at("a", 1), await at("b", 2)] == [1, 2]
        await app.orm.update(Slot, 1, room="c")
        assert [await at("a", 1), await at("c", 1)] == [None, 1]
        await program.runs("UPDATE slots SET room_name = 'd' WHERE id = 2", "DELETE FROM slots WHERE id = 1")
        await app.catch_up()
        assert [await at("b", 2), await at("d", 2), await at("c", 1)] == [None, 2, None]

"""An application that forgets what it was told, for the test that this is noticed."""

from __future__ import annotations

import os
from typing import Annotated

import msgspec
from msgspec import Meta
from sqlalchemy.orm import DeclarativeBase

from diptych import Command, Diptych, Document, Query, Served
from diptych.http import Endpoint, endpoints_app

LOSES = os.environ.get("LOSES", "nothing")


class Base(DeclarativeBase):
    """No tables: the notes are in memory."""


class Note(msgspec.Struct):
    """A note."""

    name: str


Name = Annotated[str, Meta(min_length=1, max_length=20, pattern="^[a-z]+$")]


class AddNote(Command[Note]):
    """Adds a note."""

    name: Name


class DeleteNote(Command[bool]):
    """Deletes a note."""

    name: Name


class GetNote(Query[Document[Note]]):
    """Asks for a note."""

    name: Name


class Handlers:
    """Handles everything, but for what is lost."""

    def __init__(self) -> None:
        self.notes: set[str] = set()

    async def add(self, command: AddNote) -> Note:
        if LOSES != "notes":
            self.notes.add(command.name)
        return Note(command.name)

    async def delete(self, command: DeleteNote) -> bool:
        is_there = command.name in self.notes
        if LOSES != "deletions":
            self.notes.discard(command.name)
        return is_there

    async def get(self, query: GetNote) -> Document[Note]:
        body = msgspec.json.encode(Note(query.name)) if query.name in self.notes else None
        return Document(b"[]" if body and LOSES == "fields" else body, Served("sql"), Note)


app = endpoints_app(
    Diptych(models=Base, handlers=[Handlers]),
    (
        Endpoint("POST", "/notes", AddNote, status=201, location="/notes/{name}"),
        Endpoint("GET", "/notes/{name}", GetNote, missing="there is no note {name}"),
        Endpoint("DELETE", "/notes/{name}", DeleteNote, missing="there is no note {name}"),
    ),
    title="Notes",
)

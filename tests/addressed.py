"""An application whose documents have keys of several columns, and second addresses."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, Document, Page, Query, ReadModel, by, code_point_text, join
from tests.configuration import PATIENT_REDIS


class Base(DeclarativeBase):
    pass


class Owner(Base):
    __tablename__ = "owners"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Seat(Base):
    __tablename__ = "seats"
    __table_args__ = (sa.UniqueConstraint("room", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    room: Mapped[str] = mapped_column(code_point_text(20))
    number: Mapped[int]
    code: Mapped[str | None] = mapped_column(code_point_text(20), unique=True)
    badge: Mapped[int | None] = mapped_column(unique=True)
    guest: Mapped[str] = mapped_column(code_point_text(), default="")
    owner_id: Mapped[int | None] = mapped_column(index=True)


class SeatDocument(msgspec.Struct):
    room: str
    number: int
    code: str | None
    guest: Annotated[str, msgspec.Meta(max_length=10)]


class Seats(ReadModel[Seat]):
    """By two columns, and by each of two others."""

    key = (Seat.room, Seat.number)
    also = (Seat.code, Seat.badge)
    document = SeatDocument
    lists = (by(Seat.guest), by(Seat.number))


class OwnedDocument(msgspec.Struct):
    id: int
    code: str | None
    guest: Annotated[str, msgspec.Meta(max_length=10)]
    owner: str | None


class OwnedSeats(ReadModel[Seat]):
    """Joined, and with a second address."""

    key = Seat.id
    also = (Seat.code,)
    document = OwnedDocument
    lists = (by(Seat.room),)
    joined: ClassVar = {"owner": join(Owner.name, Seat.owner_id, Owner.id)}


class GetSeat(Query[Document[SeatDocument]]):
    room: str
    number: int


class GetSeatByCode(Query[Document[SeatDocument]]):
    code: str


class ListSeats(Query[Page[SeatDocument]]):
    after: str | None = None


class SeatQueries:
    def __init__(self, seats: Seats) -> None:
        self.seats = seats

    async def get(self, query: GetSeat) -> Document[SeatDocument]:
        return await self.seats.get((query.room, query.number))

    async def by_code(self, query: GetSeatByCode) -> Document[SeatDocument]:
        return await self.seats.get(code=query.code)

    async def list(self, query: ListSeats) -> Page[SeatDocument]:
        return await self.seats.page(limit=2, after=query.after)


class GetOwned(Query[Document[OwnedDocument]]):
    id: int


class OwnedQueries:
    def __init__(self, owned: OwnedSeats) -> None:
        self.owned = owned

    async def get(self, query: GetOwned) -> Document[OwnedDocument]:
        return await self.owned.get(query.id)


class NoOwnedQueries:
    """In the place of the other where there is no such read model: each query of a module needs a handler."""

    async def get(self, query: GetOwned) -> Document[OwnedDocument]:
        raise NotImplementedError


def seating(
    database_url: str, redis_url: str | None = None, *, joined: bool = True, **settings: Any
) -> Diptych:
    """The application. Redis may answer slowly here: a busy machine must not fail a test.

    Not ``joined`` it has one read model, which commands bring up to date without a pass.
    """
    values: dict[str, Any] = {
        **PATIENT_REDIS,
        "redis_probe_interval_ms": 20,
        "lease_ms": 30_000,
    }
    values |= {"database_url": database_url, "redis_url": redis_url, **settings}
    config = ConfigService(environ={}, **values)
    handlers: list[type] = [SeatQueries, OwnedQueries if joined else NoOwnedQueries]
    return Diptych(config, models=Base, handlers=handlers, read_models=[Seats, OwnedSeats][: 1 + joined])


def seats_of(app: Diptych) -> Any:
    """The read model of seats in a started application."""
    handler: Any = app._run.bus.handler_of(GetSeat)
    return handler.__self__.seats


def read_models(app: Diptych) -> tuple[Any, Any]:
    """The read models of a started application, of which one is joined."""
    handler: Any = app._run.bus.handler_of(GetOwned)
    return seats_of(app), handler.__self__.owned


async def answers(model: ReadModel[Any], key: Any = msgspec.UNSET, **also: Any) -> bytes | str | None:
    """The body of the document, or the words of the error in its place."""
    try:
        return (await model.get(key, **also)).body
    except Exception as error:
        return f"{type(error).__name__}: {error}"

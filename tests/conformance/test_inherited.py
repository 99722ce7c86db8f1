"""A hierarchy of classes beside a read model: refused with the class to declare, which then is all that it takes."""

from __future__ import annotations

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import Command, Diptych, Document, ORMService, Page, Query, ReadModel, WiringError, by, one
from diptych.testing import settled
from tests.configuration import configured
from tests.servers import RedisServer


class Base(DeclarativeBase):
    pass


class Contact(Base):
    __tablename__ = "contacts"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(20))
    name: Mapped[str] = mapped_column(sa.String(50))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "contact"}  # noqa: RUF012


class Company(Contact):
    """Has its columns in the table of the contacts."""

    vat: Mapped[str | None] = mapped_column(sa.String(20))
    __mapper_args__ = {"polymorphic_identity": "company"}  # noqa: RUF012


class Person(Contact):
    """Has a table of its own."""

    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(sa.ForeignKey(Contact.id, ondelete="CASCADE"), primary_key=True)
    title: Mapped[str | None] = mapped_column(sa.String(20))
    __mapper_args__ = {"polymorphic_identity": "person"}  # noqa: RUF012


class ContactRow(Base):
    __table__ = Contact.__table__


class PersonRow(Base):
    __table__ = Person.__table__


ContactRow.person = relationship(PersonRow, viewonly=True, uselist=False)


class ContactDocument(msgspec.Struct):
    name: str
    kind: str
    vat: str | None
    title: str | None


class Contacts(ReadModel[ContactRow]):
    key = ContactRow.id  # type: ignore[attr-defined]
    document = ContactDocument
    nested = {"title": one(ContactRow.person, PersonRow.title)}  # type: ignore[attr-defined] # noqa: RUF012
    lists = (by(ContactRow.kind, ContactRow.name, name="name"),)  # type: ignore[attr-defined]


class GetContact(Query[Document[ContactDocument]]):
    id: int


class ListContacts(Query[Page[ContactDocument]]):
    kind: str


class AddContacts(Command[list[int]]):
    names: list[str]


class Rename(Command[None]):
    id: int
    title: str


class Handlers:
    def __init__(self, contacts: Contacts, orm: ORMService) -> None:
        self.contacts, self.orm = contacts, orm

    async def get(self, query: GetContact) -> Document[ContactDocument]:
        return await self.contacts.get(query.id)

    async def page(self, query: ListContacts) -> Page[ContactDocument]:
        return await self.contacts.page("name", where={"kind": query.kind})

    async def add(self, command: AddContacts) -> list[int]:
        async with self.orm.session() as session:
            made = [Person(name=name, title="Dr") for name in command.names]
            session.add_all([*made, Company(name="Lux", vat="LU1")])
            await session.flush()
            return [one.id for one in made]

    async def rename(self, command: Rename) -> None:
        async with self.orm.session() as session:
            person = await session.get(Person, command.id)
            assert person is not None
            person.title = command.title


async def test_the_rows_of_a_hierarchy_are_documents(database_url: str, valkey: RedisServer):
    async with Diptych(
        configured(database_url, valkey.url), models=Base, handlers=[Handlers], read_models=[Contacts]
    ) as app:
        await settled(app)
        first, second = await app.execute(AddContacts(["Ann", "Bob"]))
        await app.execute(Rename(second, "Prof"))
        found = await app.ask(GetContact(second))
        assert found.served.store == "redis"
        assert found.decode() == ContactDocument("Bob", "person", None, "Prof")
        page = (await app.ask(ListContacts("company"))).decode()
        assert page.items == [ContactDocument("Lux", "company", "LU1", None)]
        async with app.orm.session() as session:
            await session.delete(await session.get(Person, first))
        assert not await app.ask(GetContact(first))


@pytest.mark.parametrize("model", [Contact, Company, Person])
async def test_a_class_of_a_hierarchy_is_refused_with_the_class_to_declare(
    model: type[Contact], sqlite_url: str
):
    refused = type("Refused", (ReadModel,), {"key": model.id, "document": ContactDocument})
    with pytest.raises(WiringError) as caught:
        async with Diptych(configured(sqlite_url), models=Base, handlers=[], read_models=[refused]):
            pass
    name, table = model.__name__, model.__table__.name  # type: ignore[attr-defined]
    assert f"{name} is mapped with inheritance: declare a class of the table {table} alone" in str(
        caught.value
    )
    assert f"`class {name}Row(Base): __table__ = {name}.__table__`" in str(caught.value)

"""What a mapping asks for beyond its columns is honoured by ORMService, or the write refused: it is never dropped."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import logging
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    Mapper,
    column_property,
    foreign,
    mapped_column,
    reconstructor,
    relationship,
    synonym,
    validates,
)

from diptych import (
    Command,
    ConfigService,
    ConstraintError,
    Diptych,
    InvalidValueError,
    ORMService,
    StaleVersionError,
    UnknownColumnError,
    WiringError,
)
from diptych.http import problem_for
from diptych.log.table import LOG


class Base(DeclarativeBase):
    pass


class Counted(Base):
    """Versions as SQLAlchemy counts them by default: 1, 2, 3."""

    __tablename__ = "counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    edition: Mapped[int] = mapped_column("version_no")
    __mapper_args__ = {"version_id_col": edition}  # noqa: RUF012 - SQLAlchemy's way


class Stamped(Base):
    """Versions that a function of the application makes."""

    __tablename__ = "stamped"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    stamp: Mapped[str] = mapped_column(sa.String(32))
    __mapper_args__ = {"version_id_col": stamp, "version_id_generator": lambda _: uuid.uuid4().hex}  # noqa: RUF012


class ServerCounted(Base):
    """Versions that the database makes, by an expression in the statement or by a trigger after it."""

    __tablename__ = "server_counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(
        server_default=sa.text("1"), server_onupdate=sa.FetchedValue(), nullable=False
    )
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012


class ExpressionCounted(Base):
    __tablename__ = "expression_counted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(server_default=sa.text("1"), onupdate=sa.text("version + 1"))
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012


class SetByApplication(Base):
    """Versions that nothing makes: the application is to set each, in the flush of a session."""

    __tablename__ = "set_by_application"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    version: Mapped[int] = mapped_column(default=1)
    __mapper_args__ = {"version_id_col": version, "version_id_generator": False}  # noqa: RUF012


class Person(Base):
    __tablename__ = "persons"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20))
    folded: Mapped[str | None]
    born: Mapped[datetime.date | None]
    notes: Mapped[Any | None] = mapped_column(MutableDict.as_mutable(sa.JSON))
    nick = synonym("name")
    shout = column_property(sa.func.upper(sa.literal_column("name")))

    @validates("name")
    def _name(self, _: str, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be blank")
        self.folded = value.strip().casefold()
        return value.strip()

    @validates("born")
    def _born(self, _: str, value: datetime.date | None) -> datetime.date | None:
        assert value is None or isinstance(value, datetime.date)
        if value is not None and self.name == "Nobody":
            raise ValueError("nobody was never born")
        return value

    @reconstructor
    def _loaded(self) -> None:
        self.greeting = f"I am {self.name}"


class Defaulted(Base):
    __tablename__ = "defaulted"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str] = mapped_column(
        default=lambda context: context.get_current_parameters()["name"].lower(),
        onupdate=lambda context: context.get_current_parameters()["name"].lower() + "!",
    )
    touched: Mapped[str | None] = mapped_column(server_onupdate=sa.FetchedValue())


class Dataclassed(MappedAsDataclass, DeclarativeBase):
    pass


class Made(Dataclassed):
    __tablename__ = "made"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    given: Mapped[str] = mapped_column(default="given")
    made: Mapped[str] = mapped_column(default_factory=lambda: "made")


class Parent(Base):
    """Other rows refer to it; what the relationships ask of a deletion differs from test to test."""

    __tablename__ = "parents"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None]


@pytest.fixture
async def orm(database_url: str) -> AsyncIterator[ORMService]:
    async with _opened(database_url, Base) as service:
        yield service


@contextlib.asynccontextmanager
async def _opened(database_url: str, models: type) -> AsyncIterator[ORMService]:
    service = ORMService(ConfigService(environ={}, database_url=database_url))
    await service.init(models=models)
    try:
        yield service
    finally:
        await service.close()


async def _sql(orm: ORMService, *statements: str) -> None:
    async with orm.database.writer.begin() as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))


async def _images(orm: ORMService) -> list[dict[str, Any]]:
    """What the log holds of all changes, in their order."""
    async with orm.database.reader.connect() as connection:
        rows = await connection.execute(sa.select(LOG.c.image).order_by(LOG.c.position))
        return [json.loads(image) for (image,) in rows]


# Versions


async def test_versions_are_counted(orm: ORMService) -> None:
    first = await orm.create(Counted, name="a")
    assert first.edition == 1
    changed = await orm.update(Counted, first.id, name="b", return_instance=True)
    assert changed is not None
    assert changed.edition == 2
    assert await orm.update(Counted, first.id, edition=2, name="c") is True
    assert [image["edition"] for image in await _images(orm)] == [1, 2, 3]
    assert (await orm.get(Counted, first.id)).edition == 3  # type: ignore[union-attr]


async def test_a_change_of_a_version_that_is_no_more_is_refused(orm: ORMService) -> None:
    row = await orm.create(Counted, name="a")
    await orm.update(Counted, row.id, name="by another")
    for change in (
        lambda: orm.update(Counted, row.id, edition=1, name="mine"),
        lambda: orm.update(Counted, row.id, edition=1),
        lambda: orm.delete(Counted, row.id, edition=1),
        lambda: orm.delete(Counted, "by another", "name", edition=3),
    ):
        with pytest.raises(StaleVersionError, match="and is 2") as refused:
            await change()
        assert isinstance(refused.value, ConstraintError)
        assert (refused.value.model, refused.value.columns) == ("Counted", ("edition",))
        assert refused.value.found == 2
    found = await orm.get(Counted, row.id)
    assert found is not None
    assert (found.name, found.edition) == ("by another", 2)
    assert (
        await orm.update(Counted, row.id, edition="2") is True
    )  # the version is right, and nothing is changed
    assert len(await _images(orm)) == 2
    assert await orm.delete(Counted, row.id, edition=2) is True


async def test_of_two_who_have_read_the_same_version_one_wins(orm: ORMService) -> None:
    row = await orm.create(Counted, name="a")
    changes = [orm.update(Counted, row.id, edition=1, name=name) for name in "bcdef"]
    outcomes = await asyncio.gather(*changes, return_exceptions=True)
    assert sorted(type(one).__name__ for one in outcomes) == [*["StaleVersionError"] * 4, "bool"]
    assert len(await _images(orm)) == 2


async def test_a_row_that_is_gone_is_told_as_ever(orm: ORMService) -> None:
    assert await orm.update(Counted, 7, edition=1, name="x") is False
    assert await orm.delete(Counted, 7, edition=1) is False


async def test_the_version_of_a_new_row_is_not_the_callers(orm: ORMService) -> None:
    with pytest.raises(InvalidValueError, match="edition is made by the mapping"):
        await orm.create(Counted, name="a", edition=5)
    with pytest.raises(InvalidValueError, match="edition must not be null"):
        await orm.update(Counted, 1, edition=None)


async def test_a_deletion_takes_no_field_but_the_version(orm: ORMService) -> None:
    with pytest.raises(InvalidValueError, match="name is not the version"):
        await orm.delete(Counted, 1, name="a")
    with pytest.raises(InvalidValueError, match="name is not the version"):
        await orm.delete(Person, 1, name="a")
    with pytest.raises(UnknownColumnError):
        await orm.delete(Person, 1, version=1)


async def test_versions_of_a_generator_of_ones_own(orm: ORMService) -> None:
    row = await orm.create(Stamped, name="a")
    changed = await orm.update(Stamped, row.id, stamp=row.stamp, name="b", return_instance=True)
    assert changed is not None
    assert len({row.stamp, changed.stamp}) == 2
    with pytest.raises(StaleVersionError):
        await orm.update(Stamped, row.id, stamp=row.stamp, name="c")


async def test_versions_that_a_trigger_makes(orm: ORMService) -> None:
    await _sql(orm, *_trigger(orm, "server_counted", "version = OLD.version + 10"))
    row = await orm.create(ServerCounted, name="a")
    assert row.version == 1
    changed = await orm.update(ServerCounted, row.id, version=1, name="b", return_instance=True)
    assert changed is not None
    assert changed.version == 11
    with pytest.raises(StaleVersionError):
        await orm.update(ServerCounted, row.id, version=1, name="c")
    assert [image["version"] for image in await _images(orm)] == [1, 11]


async def test_versions_that_an_expression_makes(orm: ORMService) -> None:
    row = await orm.create(ExpressionCounted, name="a")
    assert await orm.update(ExpressionCounted, row.id, version=1, name="b")
    with pytest.raises(StaleVersionError):
        await orm.update(ExpressionCounted, row.id, version=1, name="c")
    assert [image["version"] for image in await _images(orm)] == [1, 2]


async def test_versions_that_nothing_makes_are_no_protection(orm: ORMService) -> None:
    row = await orm.create(SetByApplication, name="a")
    with pytest.raises(
        WiringError, match="SetByApplication can't be updated by ORMService: nothing gives it a new"
    ):
        await orm.update(SetByApplication, row.id, version=1, name="b")
    with pytest.raises(StaleVersionError):
        await orm.delete(SetByApplication, row.id, version=2)
    assert await orm.delete(SetByApplication, row.id, version=1) is True


async def test_a_system_column_of_postgresql_is_a_version(postgres_url: str) -> None:
    class Own(DeclarativeBase):
        pass

    class Row(Own):
        __tablename__ = "rows"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str]
        xmin: Mapped[int] = mapped_column("xmin", system=True, server_default=sa.FetchedValue())
        __mapper_args__ = {"version_id_col": xmin, "version_id_generator": False}  # noqa: RUF012

    async with _opened(postgres_url, Own) as orm:
        row = await orm.create(Row, name="a")
        changed = await orm.update(Row, row.id, xmin=row.xmin, name="b", return_instance=True)
        assert changed is not None
        assert changed.xmin != row.xmin
        assert (await orm.get(Row, row.id)).xmin == changed.xmin  # type: ignore[union-attr]
        with pytest.raises(StaleVersionError):
            await orm.delete(Row, row.id, xmin=row.xmin)


async def test_a_stale_version_is_409_over_http(orm: ORMService) -> None:
    row = await orm.create(Counted, name="secret")
    with pytest.raises(StaleVersionError) as refused:
        await orm.update(Counted, row.id, edition=9, name="x")
    problem = problem_for(refused.value)
    assert (problem.status, problem.type) == (409, "urn:diptych:problem:stale-version")
    assert [(one.field, one.pointer) for one in problem.errors] == [("edition", "#/edition")]
    assert problem.columns == ("edition",)


# Attributes


async def test_validators_are_called(orm: ORMService) -> None:
    person = await orm.create(Person, name="  Ann ")
    assert (person.name, person.folded) == ("Ann", "ann")
    for change in (lambda: orm.create(Person, name=" "), lambda: orm.update(Person, person.id, name=" ")):
        with pytest.raises(InvalidValueError) as refused:
            await change()
        assert refused.value.faults == (("name", "must not be blank"),)
    changed = await orm.update(Person, person.id, name=" BEA ", return_instance=True)
    assert changed is not None
    assert (changed.name, changed.folded) == ("BEA", "bea")
    assert [(image["name"], image["folded"]) for image in await _images(orm)] == [
        ("Ann", "ann"),
        ("BEA", "bea"),
    ]


async def test_a_validator_gets_the_columns_type_and_sees_the_row(orm: ORMService) -> None:
    person = await orm.create(Person, name="Nobody")
    with pytest.raises(InvalidValueError, match="born nobody was never born"):
        await orm.update(Person, person.id, born="2000-01-01")
    other = await orm.create(Person, name="Ann", born="2000-01-01")
    assert other.born == datetime.date(2000, 1, 1)


async def test_what_a_validator_returns_has_to_fit_the_column(orm: ORMService) -> None:
    def lengthened(_target: Any, value: str, *_: Any) -> str:
        return value * 30

    with (
        _listening(Person.name, "set", lengthened, retval=True),
        pytest.raises(InvalidValueError, match="name must have at most 20 characters"),
    ):
        await orm.create(Person, name="Ann")


async def test_listeners_of_an_attribute_are_called(orm: ORMService) -> None:
    def doubled(_target: Any, value: str, *_: Any) -> str:
        return value * 2

    person = await orm.create(Person, name="Ann")
    with _listening(Person.folded, "set", doubled, retval=True):
        changed = await orm.update(Person, person.id, folded="x", return_instance=True)
    assert changed is not None
    assert changed.folded == "xx"


async def test_an_instance_is_told_that_it_is_loaded(orm: ORMService) -> None:
    created = await orm.create(Person, name="Ann", notes={"a": 1})
    found = await orm.get(Person, created.id)
    assert found is not None
    assert (created.greeting, found.greeting) == ("I am Ann", "I am Ann")
    assert isinstance(found.notes, MutableDict)
    # Its JSON is of a type that notes its changes: a change of another field writes what the row has.
    await orm.update(Person, created.id, name="Bea")
    assert (await orm.get(Person, created.id)).notes == {"a": 1}  # type: ignore[union-attr]


async def test_what_is_no_column_is_no_field(orm: ORMService) -> None:
    for name in ("nick", "shout", "greeting"):
        with pytest.raises(UnknownColumnError):
            await orm.create(Person, **{"name": "Ann", name: "x"})
        fields: dict[str, Any] = {name: "x"}
        with pytest.raises(UnknownColumnError):
            await orm.update(Person, 1, **fields)


# Columns


async def test_defaults_are_called_with_their_context(orm: ORMService) -> None:
    row = await orm.create(Defaulted, name="Ann")
    assert row.slug == "ann"
    changed = await orm.update(Defaulted, row.id, name="Bea", return_instance=True)
    assert changed is not None
    assert changed.slug == "bea!"
    assert [image["slug"] for image in await _images(orm)] == ["ann", "bea!"]


async def test_what_a_trigger_makes_is_in_the_answer_and_in_the_log(orm: ORMService) -> None:
    await _sql(orm, *_trigger(orm, "defaulted", "touched = 'touched by ' || NEW.name"))
    row = await orm.create(Defaulted, name="Ann")
    changed = await orm.update(Defaulted, row.id, name="Bea", return_instance=True)
    assert changed is not None
    assert changed.touched == "touched by Bea"
    assert [image["touched"] for image in await _images(orm)] == [None, "touched by Bea"]


async def test_factories_of_a_dataclass_are_called(database_url: str) -> None:
    async with _opened(database_url, Dataclassed) as orm:
        row = await orm.create(Made)
        assert (row.given, row.made) == ("given", "made")
        assert (await orm.create(Made, made="mine")).made == "mine"


async def test_a_primary_key_that_the_mapping_names_is_the_one(database_url: str) -> None:
    class Own(DeclarativeBase):
        pass

    class Keyless(Own):
        __table__ = sa.Table(
            "keyless", Own.metadata, sa.Column("code", sa.String(9)), sa.Column("name", sa.String(9))
        )
        __mapper_args__ = {"primary_key": [__table__.c.code]}  # noqa: RUF012

    async with _opened(database_url, Own) as orm:
        for code in "abb":
            await orm.create(Keyless, code=code, name=code)
        assert await orm.update(Keyless, "a", name="changed") is True
        assert await _column(orm, Keyless, "name") == ["b", "b", "changed"]
        assert await orm.update(Keyless, "changed", "name", name="again") is True
        # What the mapping calls unique is not: no row is changed that was not meant.
        for change in (
            lambda: orm.update(Keyless, "b", name="x"),
            lambda: orm.delete(Keyless, "b"),
        ):
            with pytest.raises(Exception, match="several rows"):
                await change()
        assert await _column(orm, Keyless, "name") == ["again", "b", "b"]


# Listeners of mappers


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("operation", ["insert", "update", "delete"])
async def test_a_write_whose_listener_would_not_be_called_is_refused(
    orm: ORMService, moment: str, operation: str
) -> None:
    row = await orm.create(Parent, name="a")
    writes = {
        "insert": lambda: orm.create(Parent, name="b"),
        "update": lambda: orm.update(Parent, row.id, name="b"),
        "delete": lambda: orm.delete(Parent, row.id),
    }
    refused = writes.pop(operation)
    for target in (Parent, Mapper):
        with _listening(target, f"{moment}_{operation}", lambda *_: None):
            with pytest.raises(
                WiringError, match=rf"Parent can't be \w+ by ORMService: it has a {moment}_{operation}"
            ):
                await refused()
            assert await orm.get(Parent, row.id) is not None
    with _listening(Parent, f"{moment}_{operation}", lambda *_: None):
        for write in writes.values():
            assert await write()


async def test_a_listener_that_comes_down_from_the_base_counts(database_url: str) -> None:
    class Own(DeclarativeBase):
        pass

    event.listen(Own, "before_update", lambda *_: None, propagate=True)

    class Row(Own):
        __tablename__ = "rows"
        id: Mapped[int] = mapped_column(primary_key=True)

    async with _opened(database_url, Own) as orm:
        with pytest.raises(WiringError, match="before_update"):
            await orm.update(Row, 1)


# Relationships

DELETIONS: dict[str, tuple[dict[str, Any], dict[str, Any] | None, str | None]] = {
    # The relationship's options, those of the foreign key (None: there is none), and why the deletion is refused.
    "plain": ({}, {}, None),
    "plain, set null": ({}, {"ondelete": "SET NULL"}, None),
    "plain, restrict": ({}, {"ondelete": "restrict"}, None),
    "plain, cascade": ({}, {"ondelete": "CASCADE"}, "set to null the references of rows of Child"),
    "plain, passive, cascade": ({"passive_deletes": True}, {"ondelete": "CASCADE"}, None),
    "plain, no key": ({}, None, "set to null the references of rows of Child"),
    "passive, no key": ({"passive_deletes": True}, None, "set to null"),
    "all, no key": ({"passive_deletes": "all"}, None, None),
    "viewonly, no key": ({"viewonly": True}, None, None),
    "cascade": ({"cascade": "all, delete-orphan"}, {}, None),
    "cascade, cascade": ({"cascade": "all, delete-orphan"}, {"ondelete": "CASCADE"}, None),
    "cascade, set null": ({"cascade": "all, delete"}, {"ondelete": "SET NULL"}, "delete rows of Child"),
    "cascade, no key": ({"cascade": "all, delete"}, None, "delete rows of Child"),
}


def _family(options: dict[str, Any], key: dict[str, Any] | None) -> tuple[type[Any], type[Any], type[Any]]:
    class Own(DeclarativeBase):
        pass

    class Child(Own):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner_id: Mapped[int | None] = (
            mapped_column() if key is None else mapped_column(sa.ForeignKey("owners.id", **key))
        )

    class Owner(Own):
        __tablename__ = "owners"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str | None]
        children: Mapped[list[Child]] = relationship(
            Child, primaryjoin=lambda: foreign(Child.owner_id) == Owner.id, **options
        )

    return Own, Owner, Child


@pytest.mark.parametrize("case", DELETIONS)
async def test_a_deletion_is_refused_that_would_leave_what_the_relationship_asks(
    sqlite_url: str, case: str
) -> None:
    options, key, reason = DELETIONS[case]
    base, owner, child = _family(options, key)
    async with _opened(sqlite_url, base) as orm:
        row = await orm.create(owner, name="a")
        if reason is not None:
            with pytest.raises(
                WiringError, match=f"Owner can't be deleted by ORMService.*children is to {reason}"
            ):
                await orm.delete(owner, row.id)
            assert await orm.get(owner, row.id) is not None
        assert await orm.update(owner, row.id, name="b") is True
        assert await orm.delete(child, (await orm.create(child, owner_id=row.id)).id) is True
        if reason is None:
            assert await orm.delete(owner, row.id) is True


async def test_a_foreign_key_without_an_action_refuses_aloud(database_url: str) -> None:
    base, owner, child = _family({"cascade": "all, delete"}, {})
    async with _opened(database_url, base) as orm:
        row = await orm.create(owner)
        await orm.create(child, owner_id=row.id)
        with pytest.raises(ConstraintError):
            await orm.delete(owner, row.id)
        assert len(await orm.all(child)) == 1


async def test_the_other_directions_of_cascades_are_refused(sqlite_url: str) -> None:
    class Own(DeclarativeBase):
        pass

    links = sa.Table(
        "links",
        Own.metadata,
        sa.Column("left_id", sa.ForeignKey("lefts.id", ondelete="CASCADE")),
        sa.Column("right_id", sa.Integer),
    )

    class Right(Own):
        __tablename__ = "rights"
        id: Mapped[int] = mapped_column(primary_key=True)
        lefts: Mapped[list[Left]] = relationship(
            lambda: Left,
            secondary=links,
            primaryjoin=lambda: foreign(links.c.right_id) == Right.id,
            secondaryjoin=lambda: foreign(links.c.left_id) == Left.id,
            back_populates="rights",
        )

    class Left(Own):
        __tablename__ = "lefts"
        id: Mapped[int] = mapped_column(primary_key=True)
        rights: Mapped[list[Right]] = relationship(
            Right,
            secondary=links,
            primaryjoin=lambda: foreign(links.c.left_id) == Left.id,
            secondaryjoin=lambda: foreign(links.c.right_id) == Right.id,
            back_populates="lefts",
        )

    class Part(Own):
        __tablename__ = "parts"
        id: Mapped[int] = mapped_column(primary_key=True)
        left_id: Mapped[int | None] = mapped_column(sa.ForeignKey("lefts.id"))
        left: Mapped[Left | None] = relationship(Left, cascade="all, delete-orphan", single_parent=True)

    async with _opened(sqlite_url, Own) as orm:
        assert await orm.delete(Left, (await orm.create(Left)).id) is True
        with pytest.raises(WiringError, match="lefts is to delete rows of links with it"):
            await orm.delete(Right, (await orm.create(Right)).id)
        with pytest.raises(WiringError, match="left is to delete rows of Left with it"):
            await orm.delete(Part, (await orm.create(Part)).id)


@pytest.mark.parametrize(
    ("passive", "key", "is_refused"),
    [(False, None, True), (False, {}, False), (False, {"onupdate": "CASCADE"}, False), (True, None, False)],
)
async def test_a_changed_key_that_nobody_would_carry_on_is_refused(
    sqlite_url: str, passive: bool, key: dict[str, Any] | None, is_refused: bool
) -> None:
    base, owner, _ = _family({"passive_updates": passive, "passive_deletes": "all"}, key)
    async with _opened(sqlite_url, base) as orm:
        row = await orm.create(owner)
        assert await orm.update(owner, row.id, name="b") is True
        if is_refused:
            with pytest.raises(WiringError, match="passive_updates=False"):
                await orm.update(owner, row.id, id=9)
        else:
            assert await orm.update(owner, row.id, id=9) is True


# Told at start


class Rename(Command[bool]):
    id: int


class RenameHandler:
    def __init__(self, orm: ORMService) -> None:
        self.orm = orm

    async def rename(self, command: Rename) -> bool:
        return await self.orm.update(SetByApplication, command.id, name="x")


async def test_the_start_names_what_will_be_refused_once(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = Diptych(ConfigService(environ={}, database_url=sqlite_url), models=Base, handlers=[RenameHandler])
    with caplog.at_level(logging.WARNING, "diptych.write"):
        async with app:
            told = [record.getMessage() for record in caplog.records if record.name == "diptych.write"]
            assert [
                text
                for text in told
                if not text.startswith("SetByApplication can't be updated by ORMService: ")
            ] == []
            assert len(told) == 1
            await app.orm.create(SetByApplication, name="a")
            assert [row.name for row in await app.orm.all(SetByApplication)] == [
                "a"
            ]  # reading is never refused
            with pytest.raises(WiringError, match="SetByApplication can't be updated"):
                await app.execute(Rename(1))
            assert len([r for r in caplog.records if r.name == "diptych.write"]) == 1


async def test_the_orm_service_alone_tells_at_the_first_use(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with _opened(sqlite_url, Base) as orm:
        with caplog.at_level(logging.WARNING, "diptych.write"):
            for _ in range(2):
                await orm.all(SetByApplication)
        told = [r.getMessage()[:40] for r in caplog.records if r.levelno >= logging.WARNING]
        assert told == ["SetByApplication can't be updated by ORM"]


# Helpers


async def _column(orm: ORMService, model: type, name: str) -> list[Any]:
    """What all rows have in it."""
    async with orm.database.reader.connect() as connection:
        return sorted((await connection.execute(sa.select(getattr(model, name)))).scalars())


@contextlib.contextmanager
def _listening(target: Any, name: str, listener: Any, **options: Any) -> Iterator[None]:
    event.listen(target, name, listener, **options)
    try:
        yield
    finally:
        event.remove(target, name, listener)


def _trigger(orm: ORMService, table: str, change: str) -> list[str]:
    """A trigger that changes a row once more, after each update of its name."""
    if orm.database.name == "sqlite":
        return [
            f"CREATE TRIGGER again AFTER UPDATE OF name ON {table} BEGIN"
            f" UPDATE {table} SET {change} WHERE id = NEW.id; END"
        ]
    return [
        f"CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" UPDATE {table} SET {change} WHERE id = NEW.id; RETURN NULL; END $$",
        f"CREATE TRIGGER again AFTER UPDATE OF name ON {table} FOR EACH ROW EXECUTE FUNCTION again()",
    ]

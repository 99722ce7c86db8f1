"""``diptych check``, and the line at start: which lists no index serves, and which indexes count."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

ROOT = Path(__file__).parents[2]

APPLICATION = """
from msgspec import Struct
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, ReadModel, by, code_point_text, join


class Base(DeclarativeBase):
    pass


class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(unique=True)
    owner: Mapped[str] = mapped_column(code_point_text(40))
    title: Mapped[str] = mapped_column(String(40))
    opened: Mapped[int | None]


class TicketDocument(Struct):
    id: int


class Tickets(ReadModel[Ticket]):
    key = Ticket.id
    document = TicketDocument
    lists = (
        by(Ticket.owner, Ticket.opened.desc(), name="newest"),
        by(Ticket.title, name="a-title"),
        by(Ticket.number.desc(), name="numbers"),
    )


class Owned(ReadModel[Ticket]):
    key = Ticket.number
    document = TicketDocument
    lists = (by(Ticket.owner, Ticket.opened.desc(), Ticket.id),)


app = Diptych(ConfigService(), models=Base, handlers=[], read_models=[Tickets, Owned])

if __name__ == "__main__":
    import asyncio

    async def main() -> None:
        async with app:
            pass

    asyncio.run(main())
"""

JOINED = """

class Owner(Base):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)
    city: Mapped[str] = mapped_column(code_point_text(40))


class OwnerDocument(Struct):
    id: int
    city: str | None


class ByCity(ReadModel[Ticket]):
    key = Ticket.id
    document = OwnerDocument
    joined = {"city": join(Owner.city, Ticket.opened, Owner.id)}
    lists = (by(Owner.city, name="cities"), by(Ticket.opened, Owner.city, name="opened"))


app = Diptych(ConfigService(), models=Base, handlers=[], read_models=[ByCity])
"""

EACH = """

tagged = Table(
    "tagged",
    Base.metadata,
    Column("thing_id", ForeignKey("things.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class Part(Base):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[int] = mapped_column(ForeignKey("things.id"))
    number: Mapped[int | None]


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)
    parts: Mapped[list[Part]] = relationship()


class ThingDocument(Struct):
    id: int


class Things(ReadModel[Thing]):
    key = Thing.id
    document = ThingDocument
    lists = (by(each(Thing.tags, Tag.name)), by(each(Thing.parts, Part.number)))


app = Diptych(ConfigService(), models=Base, handlers=[], read_models=[Things])
"""

NESTED = """

tagged = Table(
    "tagged",
    Base.metadata,
    Column("thing_id", ForeignKey("things.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))


class Maker(Base):
    __tablename__ = "makers"
    code: Mapped[str] = mapped_column(String(40), primary_key=True)


class Part(Base):
    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    thing_id: Mapped[int] = mapped_column(ForeignKey("things.id"))
    maker_code: Mapped[str | None] = mapped_column(ForeignKey(Maker.code))
    maker: Mapped[Maker | None] = relationship()


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)
    parts: Mapped[list[Part]] = relationship()


class PartDocument(Struct):
    id: int
    maker: str | None


class ThingDocument(Struct):
    id: int
    tags: list[int]
    parts: list[PartDocument]
    part_count: int


class Things(ReadModel[Thing]):
    key = Thing.id
    document = ThingDocument
    nested = {
        "tags": many(Thing.tags, Tag.id),
        "parts": many(Thing.parts, nested={"maker": one(Part.maker, Maker.code)}),
        "part_count": count(Thing.parts),
    }
    lists = (by(field("part_count").desc(), name="largest"),)


app = Diptych(ConfigService(), models=Base, handlers=[], read_models=[Things])
"""

EACH_IMPORTS = (
    "from sqlalchemy import Column, ForeignKey, Table\nfrom sqlalchemy.orm import relationship\n"
    "from diptych import count, each, field, many, one\n"
)

NEWEST = {
    "sqlite": (
        'Index("ix_tickets_newest", Ticket.owner, Ticket.opened.is_(None).desc(), Ticket.opened.desc(), Ticket.id)'
    ),
    "postgresql": 'Index("ix_tickets_newest", Ticket.owner, Ticket.opened.desc(), Ticket.id)',
}
TITLE = {
    "sqlite": 'Index("ix_tickets_a_title", Ticket.title, Ticket.id)',
    "postgresql": 'Index("ix_tickets_a_title", Ticket.title.collate("C"), Ticket.id)',
}


@pytest.fixture
def module(tmp_path: Path) -> Path:
    (tmp_path / "helpdesk.py").write_text(APPLICATION)
    return tmp_path


async def run(folder: Path, url: str, *arguments: str) -> tuple[int, str, str]:
    """Runs Python; returns its exit code, what it wrote, and what it complained of."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}

    def done() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**ours, "DIPTYCH_DATABASE_URL": url, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=60,
        )

    found = await asyncio.to_thread(done)
    return found.returncode, found.stdout, found.stderr


async def check(folder: Path, url: str) -> tuple[int, str, str]:
    return await run(folder, url, "-m", "diptych.cli", "check", "--app", "helpdesk:app")


async def execute(url: str, *statements: str) -> None:
    driver = "postgresql+asyncpg" if url.startswith("postgresql") else "sqlite+aiosqlite"
    engine = create_async_engine(sa.make_url(url).set(drivername=driver))
    try:
        async with engine.begin() as connection:
            for statement in statements:
                await connection.execute(sa.text(statement))
    finally:
        await engine.dispose()


async def test_a_list_without_an_index_is_named_with_the_index_to_create(database_url, module):
    """Once its index is there, written as it was proposed, nothing is missing; the line at start says the same."""
    kind = database_url.partition(":")[0]
    code, _, told = await run(module, database_url, "helpdesk.py")
    assert code == 0
    assert [line for line in told.splitlines() if "no index" in line] == [
        f"{name}: in SQL no index serves the lists {lists}, whose pages get slow with many rows when Redis does not "
        "answer; `diptych check` names the indexes to create"
        for name, lists in (("Tickets", "newest; a-title"), ("Owned", "owner,opened,id"))
    ]
    code, report, complained = await check(module, database_url)
    assert (code, complained) == (1, "")
    assert report == (
        "Tickets: no index of tickets serves the list 'newest'; create\n\n"
        f"    {NEWEST[kind]}\n\n"
        "Tickets: no index of tickets serves the list 'a-title'; create\n\n"
        f"    {TITLE[kind]}\n\n"
        "Owned: no index of tickets serves the list 'owner,opened,id'; create\n\n"
        f"    {NEWEST[kind]}\n\n"
        "Each goes below its mapped class, with `from sqlalchemy import Index`, and into the database by a "
        "migration.\n"
    )
    indexes = f"\n\nfrom sqlalchemy import Index\n{NEWEST[kind]}\n{TITLE[kind]}\n\n\nclass TicketDocument"
    (module / "helpdesk.py").write_text(APPLICATION.replace("\n\n\nclass TicketDocument", indexes, 1))
    make = "import helpdesk, sqlalchemy as sa\nfrom sqlalchemy.schema import CreateIndex\n"
    make += f"from sqlalchemy.dialects import {kind} as kind\n"
    make += "for index in helpdesk.Ticket.__table__.indexes:\n"
    make += "    print(CreateIndex(index).compile(dialect=kind.dialect()))\n"
    code, statements, _ = await run(module, database_url, "-c", make)
    assert code == 0
    await execute(database_url, *statements.splitlines())
    assert await check(module, database_url) == (0, "an index serves the SQL of each list\n", "")
    _, _, told = await run(module, database_url, "helpdesk.py")
    assert "no index" not in told


async def test_a_list_sorted_by_a_joined_column_is_named_and_asks_for_what_an_index_can_have(
    database_url, module
):
    path = module / "helpdesk.py"
    tables, main = APPLICATION.partition("class Tickets(")[0], APPLICATION.partition("if __name__")
    path.write_text("".join((tables, JOINED, *main[1:])))
    await run(module, database_url, "helpdesk.py")
    nothing_serves = (
        "ByCity: no index can serve the list '{}', which is in the order of a joined table's column; when Redis does "
        "not answer, a page sorts all rows that it selects\n"
    )
    code, report, complained = await check(module, database_url)
    assert (code, complained) == (1, "")
    assert report.startswith(nothing_serves.format("cities"))
    assert "serves the list 'opened'; create" in report
    assert 'Index("ix_tickets_opened", Ticket.opened' in report
    assert "serves the field 'city'; create" in report
    await execute(database_url, "CREATE INDEX ix_tickets_city ON tickets (opened)")
    if database_url.startswith("sqlite"):
        await execute(database_url, "CREATE INDEX ix_tickets_opened ON tickets ((opened IS NULL), opened)")
    served = "an index serves the SQL of each other list\n"
    assert await check(module, database_url) == (
        0,
        "".join(map(nothing_serves.format, ("cities", "opened"))) + served,
        "",
    )
    _, _, told = await run(module, database_url, "helpdesk.py")
    assert "no index" not in told, "a line at every start that nobody could do anything about"


async def test_a_name_that_is_taken_is_not_proposed(database_url, module):
    await run(module, database_url, "helpdesk.py")
    await execute(database_url, "CREATE INDEX ix_tickets_newest ON tickets (opened)")
    _, report, _ = await check(module, database_url)
    assert report.count('Index("ix_tickets_newest_2", ') == 2


async def test_what_cannot_be_checked_ends_with_2(sqlite_url, module):
    code, report, complained = await check(module, sqlite_url)
    assert (code, report) == (2, "")
    assert "there is no file " in complained
    await execute(sqlite_url, "CREATE TABLE other (id INTEGER PRIMARY KEY)")
    code, report, complained = await check(module, sqlite_url)
    assert (code, report) == (2, "")
    assert "the table tickets (Ticket) is not there" in complained
    code, _, complained = await run(
        module, sqlite_url, "-m", "diptych.cli", "check", "--app", "helpdesk:nothing"
    )
    assert code == 2
    assert '"helpdesk" has no "nothing"' in complained


async def test_a_list_with_each_asks_for_the_indexes_of_its_elements_and_links(database_url, module):
    """The primary key of the association finds the links of a row; all else is asked for, and made as it is asked."""
    path = module / "helpdesk.py"
    tables, main = APPLICATION.partition("class Ticket(")[0], APPLICATION.partition("if __name__")
    path.write_text("".join((EACH_IMPORTS, tables, EACH, *main[1:])))
    _, _, told = await run(module, database_url, "helpdesk.py")
    assert "no index serves the lists tags; parts," in told
    _, script, _ = await run(
        module, database_url, "-m", "diptych.cli", "migrate", "--app", "helpdesk:app", "--sql"
    )
    assert "its triggers on things, tags, tagged, parts." in script
    collated = '.collate("C")' * database_url.startswith("postgresql")
    indexes = [
        f'Index("ix_tags_tags", Tag.name{collated})',
        'Index("ix_tagged_tags", tagged.c.tag_id, tagged.c.thing_id)',
        'Index("ix_parts_parts", Part.number)',
        'Index("ix_parts_parts_2", Part.thing_id)',
    ]
    code, report, complained = await check(module, database_url)
    assert (code, complained) == (1, "")
    assert [
        line.strip() for line in report.splitlines() if "Index(" in line and "import" not in line
    ] == indexes
    await execute(
        database_url,
        "CREATE INDEX a ON tags (name{})".format(' COLLATE "C"' * bool(collated)),
        "CREATE INDEX b ON tagged (tag_id, thing_id)",
        "CREATE INDEX c ON parts (number)",
        "CREATE INDEX d ON parts (thing_id)",
    )
    assert await check(module, database_url) == (0, "an index serves the SQL of each list\n", "")


async def test_fields_of_other_rows_ask_for_the_indexes_of_all_that_links_them(database_url, module):
    """Without them each change of such a row would read whole tables; a list by such a field aggregates."""
    path = module / "helpdesk.py"
    tables, main = APPLICATION.partition("class Ticket(")[0], APPLICATION.partition("if __name__")
    path.write_text("".join((EACH_IMPORTS, tables, NESTED, *main[1:])))
    _, _, told = await run(module, database_url, "helpdesk.py")
    assert "no index serves the fields tags; parts; parts.maker; part_count: each change" in told
    assert "no index serves the lists" not in told
    code, report, complained = await check(module, database_url)
    assert (code, complained) == (1, "")
    indexes = [
        'Index("ix_tagged_tags", tagged.c.tag_id)',
        'Index("ix_parts_parts", Part.thing_id)',
        'Index("ix_parts_parts_maker", Part.maker_code)',
        'Index("ix_parts_parts", Part.thing_id)',
    ]
    assert [line.strip() for line in report.splitlines() if "    Index(" in line] == indexes
    await execute(
        database_url,
        "CREATE INDEX a ON tagged (tag_id)",
        "CREATE INDEX b ON parts (thing_id)",
        "CREATE INDEX c ON parts (maker_code)",
    )
    code, report, _ = await check(module, database_url)
    assert code == 0
    assert "Things: the list 'largest' aggregates: no index can serve it" in report
    path.write_text("import logging\n\nlogging.basicConfig(level=logging.INFO)\n" + path.read_text())
    _, _, told = await run(module, database_url, "helpdesk.py")
    assert "INFO:diptych.read:Things: in SQL no index can serve the lists largest: when Redis" in told
    assert "no index serves" not in told

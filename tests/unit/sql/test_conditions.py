"""Declared conditions: what SQLAlchemy's expressions mean, as a database says, and as a row is tested in Python."""

from __future__ import annotations

import datetime
import decimal
import enum
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from diptych.sql.conditions.parse import condition_of
from diptych.sql.conditions.tree import Unsupported, fitted, leaves_of, predicate_of
from diptych.sql.description import Row, Unreadable
from diptych.sql.entity import MappedEntity


class Base(DeclarativeBase):
    pass


class Colour(enum.Enum):
    RED = 3
    BLUE = 2
    GREEN = 1


class Thing(Base):
    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    n: Mapped[int | None]
    flag: Mapped[bool | None]
    colour: Mapped[Colour | None]
    text: Mapped[str | None]


N, COLOUR, TEXT = Thing.n, Thing.colour, Thing.text
FLAG: Any = Thing.flag  # of a column that may be null, for which `and_` has no type

CONDITIONS: dict[str, Any] = {
    "n > 1": N > 1,
    "n <= 1": sa.not_(N > 1),
    "n < 1": sa.literal(1) > N,
    "n == 1": sa.literal(1) == N,
    "n is null": N == None,  # noqa: E711 - as SQLAlchemy has it
    "n is not null": sa.not_(N.is_(None)),
    "and_(n >= 1, n <= 2)": N.between(1, 2),
    "or_(n < 1, n > 2)": ~N.between(1, 2),
    "n in (0, 2)": N.in_([0, 2]),
    "n not in (0, 2)": ~N.in_([0, 2]),
    "n in (1, 2)": N.in_([None, 1, 2]),
    "or_(flag == True, n != 1)": sa.or_(FLAG, N != 1),
    "flag == True": FLAG,
    "flag == False": ~FLAG,
    "or_(flag != True, flag is null)": FLAG.is_not(True),
    "or_(flag != False, flag is null)": ~FLAG.is_(False),
    "and_(flag == False, or_(n <= 1, text == 'a'))": sa.not_(sa.or_(FLAG, sa.and_(N > 1, TEXT != "a"))),
    "and_(or_(n == 1, text is null), colour < <Colour.GREEN: 1>)": sa.and_(
        (N == 1) | TEXT.is_(None), COLOUR < Colour.GREEN
    ),
    "colour >= <Colour.GREEN: 1>": COLOUR >= Colour.GREEN,
    "colour in (<Colour.RED: 3>, <Colour.BLUE: 2>)": COLOUR.in_([Colour.RED, Colour.BLUE]),
    "text > 'B'": TEXT > "B",
    "or_()": sa.or_(N.in_([]), sa.false()),
    "and_()": sa.and_(N.not_in([]), sa.true()),
}
"""Conditions, by their texts."""

NEVER = {"n not in (1, null)": N.not_in([1, None]), "not n in (1, null)": ~N.in_([1, None])}


@pytest.fixture(scope="module")
def database() -> Any:
    engine = sa.create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        for n, flag, colour, text in itertools.product(
            (None, 0, 1, 2), (None, False, True), (None, *Colour), (None, "a", "B", "é")
        ):
            session.add(Thing(n=n, flag=flag, colour=colour, text=text))
        session.commit()
        yield session


def predicate(expression: Any) -> Any:
    entity = MappedEntity(Thing, sa.inspect(Thing), "sqlite").describe(sa.create_engine("sqlite://").dialect)
    return predicate_of(fitted(condition_of(expression), entity), entity)


@pytest.mark.parametrize("expression", [*CONDITIONS.values(), *NEVER.values()], ids=[*CONDITIONS, *NEVER])
def test_a_row_is_tested_as_the_database_decides(database, expression):
    rows = [vars(thing) for thing in database.scalars(sa.select(Thing))]
    selected = set(database.scalars(sa.select(Thing.id).where(expression)))
    holds = predicate(expression)
    assert {row["id"] for row in rows if holds(row)} == selected
    holds_not = predicate(sa.not_(expression))
    assert {row["id"] for row in rows if holds_not(row)} == set(
        database.scalars(sa.select(Thing.id).where(sa.not_(expression)))
    )


@pytest.mark.parametrize("text", [text for text in CONDITIONS if text not in ("or_()", "and_()")])
def test_a_condition_tells_what_it_compares(text):
    assert str(condition_of(CONDITIONS[text])) == text


def test_what_is_no_comparison_with_a_constant_is_found_wherever_it_is():
    refused = sa.or_(N > 1, sa.not_(sa.and_(FLAG, sa.func.lower(TEXT) == "a")))
    [reason] = [leaf.reason for leaf in leaves_of(condition_of(refused)) if isinstance(leaf, Unsupported)]
    assert "lower(things.text)" in reason
    assert "'a'" not in reason


def test_equal_conditions_are_one_and_others_are_not():
    assert condition_of(sa.and_(N > 1, FLAG)) == condition_of(sa.and_(N > 1, FLAG))
    assert hash(condition_of(N.in_([1, 2]))) == hash(condition_of(N.in_([1, 2])))
    assert condition_of(N > 1) != condition_of(N > 2)


@pytest.mark.parametrize(
    ("expression", "value", "holds"),
    [
        (N > 1, float("nan"), True),
        (N < 1, decimal.Decimal("NaN"), False),
        (N == 1, float("nan"), False),
        (N != 1, float("nan"), True),
        (N > 1, "text", False),
        (N > 1, Unreadable("can't be loaded"), False),
        (N != 1, Unreadable("can't be loaded"), True),
        (N.is_(None), Unreadable("can't be loaded"), False),
        (N > 1, datetime.date(2026, 1, 1), False),
        (N == 1, [], False),
    ],
)
def test_values_that_no_command_stores_are_tested_as_postgresql_has_them(expression, value, holds):
    row: Row = {"n": value}
    assert predicate(expression)(row) is holds

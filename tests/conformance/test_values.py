"""Values are converted to their columns' types, and what does not fit is refused alike on both databases."""

from __future__ import annotations

import datetime
import decimal
import uuid
from typing import Any

import pytest
import sqlalchemy as sa

from diptych import Fault, InvalidValueError, ORMService
from tests.conformance.tables import Book, Defaults, Kinds, Line, Price, Shelf, Size

UTC = datetime.UTC
NAME = uuid.UUID("12345678-1234-5678-1234-567812345678")
EARLY, LATE = -(2**31), 2**31 - 1

FITTING: list[tuple[str, Any, Any]] = [
    ("small", -32768, -32768),
    ("whole", "7", 7),
    ("whole", 1.0, 1),
    ("whole", EARLY, EARLY),
    ("whole", LATE, LATE),
    ("big", 2**63 - 1, 2**63 - 1),
    ("real", 1, 1.0),
    ("real", "0.1", 0.1),
    ("real", 1e300, 1e300),
    ("flag", "true", True),
    ("flag", 0, False),
    ("short", "📚" * 5, "📚" * 5),
    ("text", "", ""),
    ("text", "\u0001\r\n", "\u0001\r\n"),
    ("day", "2024-02-29", datetime.date(2024, 2, 29)),
    ("day", datetime.date.min, datetime.date.min),
    ("moment", "2024-01-01T10:00:00.000001", datetime.datetime(2024, 1, 1, 10, 0, 0, 1)),
    ("instant", "2024-01-01T10:00:00+02:00", datetime.datetime(2024, 1, 1, 8, tzinfo=UTC)),
    ("instant", datetime.datetime(2024, 1, 1, tzinfo=UTC), datetime.datetime(2024, 1, 1, tzinfo=UTC)),
    ("time", "10:00:01", datetime.time(10, 0, 1)),
    ("span", "PT1H", datetime.timedelta(hours=1)),
    ("span", datetime.timedelta(days=-1), datetime.timedelta(days=-1)),
    ("name", str(NAME), NAME),
    ("data", b"\x00\xff", b"\x00\xff"),
    ("data", "AP8=", b"\x00\xff"),
    ("size", "small", Size.SMALL),
    ("size", Size.LARGE, Size.LARGE),
    ("word", "yes", "yes"),
    ("document", {"a": [1, None, "é"]}, {"a": [1, None, "é"]}),
    ("backwards", "abc", "abc"),
]


async def test_values_are_converted_to_their_columns_types(orm: ORMService):
    """What `create` and `update` return is what `get` finds, in value and in type."""
    for name, given, expected in FITTING:
        created = await orm.create(Kinds, **{name: given})
        changed = await orm.update(Kinds, created.id, **{name: given}, return_instance=True)
        found = await orm.get(Kinds, created.id)
        for instance in (created, changed, found):
            value = getattr(instance, name)
            assert value == expected, name
            assert isinstance(value, type(expected)), name
        if isinstance(found, Kinds) and found.instant is not None:
            assert found.instant.utcoffset() == datetime.timedelta()


@pytest.mark.filterwarnings("ignore:Dialect sqlite.aiosqlite does .not. support Decimal")
async def test_exact_numbers_are_kept_exactly(orm: ORMService):
    for given, expected in [("1.5", "1.50"), (0.1, "0.10"), (-999999.99, "-999999.99"), (5, "5.00")]:
        created = await orm.create(Price, amount=given)
        assert created.amount == decimal.Decimal(expected)
        found = await orm.get(Price, created.id)
        assert found is not None
        assert str(found.amount) == expected


NOT_UNICODE = "must be well-formed Unicode, without lone surrogates"
NUL = "must not contain the character U+0000"
EXPRESSION = "must be a value, not an SQL expression"
MISFITS: list[tuple[str, Any, str]] = [
    ("small", 2**15, "must be at most 32767"),
    ("whole", EARLY - 1, "must be at least -2147483648"),
    ("whole", LATE + 1, "must be at most 2147483647"),
    ("whole", 10**30, "must be at most 2147483647"),
    ("whole", True, "must be a whole number"),
    ("whole", 1.5, "must be a whole number"),
    ("whole", "1; DROP TABLE kinds", "must be a whole number"),
    ("whole", "\ud800", NOT_UNICODE),
    ("big", 2**63, "must be at most 9223372036854775807"),
    ("real", float("nan"), "must be a finite number"),
    ("real", float("inf"), "must be a finite number"),
    ("real", "x", "must be a number"),
    ("flag", "perhaps", "must be true or false"),
    ("short", "sixsix", "must have at most 5 characters"),
    ("short", 5, "must be text"),
    ("text", "a\x00b", NUL),
    ("text", "\ud800", NOT_UNICODE),
    ("text", b"bytes", "must be text"),
    ("day", "2023-02-29", "must be a date such as 2024-12-31"),
    ("day", datetime.datetime(2024, 1, 1, 5), "must be a date such as 2024-12-31"),
    ("moment", "2024-01-01T10:00:00Z", "must not have a time zone"),
    ("moment", datetime.datetime.now(UTC), "must not have a time zone"),
    ("instant", "2024-01-01T10:00:00", "must have a time zone"),
    ("time", "10:00:00Z", "must not have a time zone"),
    ("span", "soon", "must be a duration such as PT1H30M"),
    ("name", "x", "must be a UUID"),
    ("data", "!", "must be text in base64"),
    ("size", "SMALL", "is not one of the values it may have"),
    ("word", "perhaps", "is not one of the values it may have"),
    ("document", {"a": "\ud800"}, NOT_UNICODE),
    ("document", ["\x00"], NUL),
    ("document", float("nan"), "must be what JSON can express"),
    ("document", {"a": object()}, "must be what JSON can express"),
    ("text", sa.text("version()"), EXPRESSION),
    ("whole", sa.select(sa.literal(1)), EXPRESSION),
    ("whole", Kinds.big, EXPRESSION),
    ("document", sa.func.now(), EXPRESSION),
    ("backwards", Kinds.text, EXPRESSION),
]


async def test_values_that_do_not_fit_are_refused_in_the_same_words_on_both_databases(orm: ORMService):
    row = await orm.create(Kinds)
    for name, value, words in MISFITS:
        for call in (orm.create(Kinds, **{name: value}), orm.update(Kinds, row.id, **{name: value})):
            with pytest.raises(InvalidValueError) as caught:
                await call
            assert caught.value.faults == (Fault(name, words),)
            assert str(caught.value) == f"Kinds: {name} {words}"
    assert len(await orm.all(Kinds)) == 1


async def test_exact_numbers_that_would_be_rounded_or_cut_are_refused(orm: ORMService):
    places, digits = (
        "must have at most 2 decimal places",
        "must have at most 6 digits before the decimal point",
    )
    wrong = [("1.005", places), ("1e6", digits), (10**9, digits), ("NaN", "must be a finite number")]
    for value, words in wrong:
        with pytest.raises(InvalidValueError, match=words):
            await orm.create(Price, amount=value)


async def test_every_misfit_is_reported_not_only_the_first(orm: ORMService):
    wrong: dict[str, Any] = {
        "title": None,
        "author": 5,
        "published_date": "soon",
        "isbn": "1" * 14,
        "stock_quantity": 2**40,
    }
    faults = (
        Fault("title", "must not be null"),
        Fault("author", "must be text"),
        Fault("published_date", "must be a date such as 2024-12-31"),
        Fault("isbn", "must have at most 13 characters"),
        Fault("stock_quantity", "must be at most 2147483647"),
    )
    for call in (orm.create(Book, **wrong), orm.update(Book, 1, **wrong)):
        with pytest.raises(InvalidValueError) as caught:
            await call
        assert caught.value.faults == faults


async def test_a_new_row_without_a_value_that_it_needs_is_refused_with_its_name(orm: ORMService):
    for call, faults in (
        (orm.create(Book), (Fault("title", "is missing"), Fault("author", "is missing"))),
        (
            orm.create(Line, position=1, order_number=None, product="P"),
            (Fault("order_number", "is missing"),),
        ),
        (orm.create(Shelf, number=1), (Fault("room", "is missing"),)),
    ):
        with pytest.raises(InvalidValueError) as caught:
            await call
        assert caught.value.faults == faults


async def test_a_value_that_the_database_computes_cannot_be_given(orm: ORMService):
    with pytest.raises(InvalidValueError, match=r"^Defaults: length is computed by the database$"):
        await orm.create(Defaults, length=5)


async def test_a_value_that_only_its_own_type_can_refuse_is_refused(orm: ORMService):
    """The type's error is the cause; the row is not there."""
    with pytest.raises(
        InvalidValueError, match=r"^Kinds: a value does not fit the type of its column$"
    ) as caught:
        await orm.create(Kinds, backwards=5)
    assert caught.value.__cause__ is not None
    assert await orm.all(Kinds) == []


async def test_looking_up_what_no_row_can_hold_finds_none(orm: ORMService):
    await orm.create(Kinds, text="a", whole=1, short="a")
    for value, column in [
        (2**31, "whole"),
        (-(10**30), "whole"),
        (2**70, "id"),
        ("too long", "short"),
        ("a\x00", "text"),
        ("\ud800", "text"),
        ("perhaps", "word"),
        (float("nan"), "real"),
    ]:
        assert await orm.get(Kinds, value, column) is None
        assert await orm.update(Kinds, value, column, text="b") is False
        assert await orm.delete(Kinds, value, column) is False


async def test_looking_up_by_a_value_of_another_type_is_refused(orm: ORMService):
    for value, column, words in [
        ("1 OR 1=1", "id", "must be a whole number"),
        ((1, 2), "id", "must be a whole number"),
        ("\ud800", "whole", NOT_UNICODE),
        (5, "text", "must be text"),
        ("soon", "day", "must be a date such as 2024-12-31"),
        ("2024-01-01T10:00:00", "instant", "must have a time zone"),
        ("2024-01-01T10:00:00Z", "moment", "must not have a time zone"),
        ({"a": 1}, "document", "can't be looked up by: it holds JSON"),
        (Kinds.text, "text", EXPRESSION),
        (sa.text("1 OR 1=1"), "backwards", EXPRESSION),
    ]:
        for call in (
            orm.get(Kinds, value, column),
            orm.update(Kinds, value, column),
            orm.delete(Kinds, value, column),
        ):
            with pytest.raises(InvalidValueError) as caught:
                await call
            assert caught.value.faults == (Fault(column, words),)


async def test_a_composite_key_is_looked_up_by_as_many_values(orm: ORMService):
    for key in ("a", ("a",), ("a", 1, 2), None, "ab"):
        with pytest.raises(
            InvalidValueError, match="order_number, position must be looked up by a tuple of 2 values"
        ):
            await orm.get(Line, key)


async def test_points_in_time_are_found_whatever_zone_they_are_asked_in(orm: ORMService):
    await orm.create(Kinds, instant="2024-01-01T10:00:00+02:00")
    assert await orm.get(Kinds, "2024-01-01T08:00:00Z", "instant") is not None
    assert await orm.get(Kinds, "2024-01-01T03:00:00-05:00", "instant") is not None
    assert await orm.get(Kinds, "2024-01-01T10:00:00Z", "instant") is None

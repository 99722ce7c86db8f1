"""Messages: every faulty field is reported, at construction in code and on building from outside data."""

from __future__ import annotations

import datetime
import decimal
import enum
import json
import re
import uuid
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal, NewType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Meta, UnsetType

from diptych import Command, Event, Fault, InvalidMessage, Message, Query, Rule, build


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


def _without_hyphens(text: str) -> str:
    return text.replace("-", "")


Title = Annotated[str, Meta(min_length=1, max_length=20), Rule(_not_blank)]
Isbn = Annotated[str, Rule(_without_hyphens)]


class Add(Command[int]):
    title: Title
    author: str
    published: datetime.date | None = None
    isbn: Isbn | None = None
    stock: Annotated[int, Meta(ge=0, le=100)] = 0


class Changes(msgspec.Struct, frozen=True):
    title: Title | UnsetType = UNSET
    isbn: Isbn | UnsetType | None = UNSET
    stock: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class Edit(Command[None]):
    title: str
    changes: Changes


class Line(msgspec.Struct):
    product: Title
    count: Annotated[int, Meta(ge=1)]


class Order(Command[None]):
    lines: list[Line]
    tags: tuple[str, ...] = ()
    notes: dict[str, Title] = msgspec.field(default_factory=dict)


class Circle(msgspec.Struct, tag=True):
    radius: Annotated[int, Meta(gt=0)]


class Square(msgspec.Struct, tag=True):
    side: int


class Draw(Command[None]):
    shape: Circle | Square


class Added(Event):
    title: Title


class Find(Query[str]):
    limit: Annotated[int, Meta(ge=1, le=500)] = 50


def faults_of(make: Callable[[], object]) -> dict[str, str]:
    """The faults by field; each field may have one."""
    with pytest.raises(InvalidMessage) as caught:
        make()
    found = {fault.field: fault.detail for fault in caught.value.faults}
    assert len(found) == len(caught.value.faults)
    return found


WRONG: dict[str, Any] = {"title": " ", "author": 5, "published": "soon", "stock": 101}
WRONG_FAULTS = {
    "title": "must not be blank",
    "author": "must be text",
    "published": "must be a date such as 2024-12-31",
    "stock": "must be at most 100",
}


def test_a_message_constructed_in_code_reports_every_faulty_field():
    assert faults_of(lambda: Add(**WRONG)) == WRONG_FAULTS


def test_a_message_built_from_outside_reports_every_faulty_unknown_and_missing_field():
    assert faults_of(lambda: build(Add, WRONG)) == WRONG_FAULTS
    assert faults_of(lambda: build(Add, {"stock": -1, "colour": "red", "auther": "x"})) == {
        "colour": "is not a known field",
        "auther": "is not a known field",
        "title": "is missing",
        "author": "is missing",
        "stock": "must be at least 0",
    }


def test_the_error_is_a_value_error_that_says_it_all_in_its_text():
    with pytest.raises(ValueError, match=r"^Add: title must not be empty; author must be text$") as caught:
        Add(title="", author=None)  # type: ignore[arg-type]
    assert isinstance(caught.value, InvalidMessage)
    assert caught.value.message == "Add"
    assert caught.value.faults == (Fault("title", "must not be empty"), Fault("author", "must be text"))


def test_events_and_queries_are_checked_too():
    assert faults_of(lambda: Added(title="")) == {"title": "must not be empty"}
    assert faults_of(lambda: Find(limit=0)) == {"limit": "must be at least 1"}


def test_values_are_converted_to_the_fields_types():
    command: Any = build(Add, {"title": "T", "author": "A", "published": "2024-02-29"})
    assert command == Add("T", "A", datetime.date(2024, 2, 29))
    assert Add("T", "A", published="2024-02-29") == command  # type: ignore[arg-type]


def test_a_rule_may_give_the_value_its_canonical_form():
    assert Add("T", "A", isbn="0-306-40615-2").isbn == "0306406152"
    assert build(Add, {"title": "T", "author": "A", "isbn": "0-306-40615-2"}).isbn == "0306406152"
    assert Edit("T", Changes(isbn="1-2")).changes.isbn == "12"
    assert build(Edit, {"title": "T", "changes": {"isbn": "1-2"}}).changes.isbn == "12"


def test_rules_are_not_asked_about_none_and_unset():
    assert Add("T", "A", isbn=None).isbn is None
    assert build(Edit, {"title": "T", "changes": {"isbn": None}}).changes == Changes(isbn=None)


def test_a_rule_runs_only_on_values_of_its_type():
    assert faults_of(lambda: Add(title=5, author="A")) == {"title": "must be text"}  # type: ignore[arg-type]


def test_unset_tells_a_field_that_was_left_out_from_one_that_is_null():
    changes = build(Edit, {"title": "T", "changes": {"isbn": None}}).changes
    assert changes.isbn is None
    assert changes.title is UNSET
    assert changes.stock is UNSET


def test_unset_is_refused_where_the_type_does_not_allow_it():
    assert faults_of(lambda: Add(title=UNSET, author="A")) == {"title": "is missing"}  # type: ignore[arg-type]


def test_faults_inside_structs_are_named_by_their_path():
    expected = {"changes.title": "must not be blank", "changes.stock": "must be at least 0"}
    wrong: dict[str, Any] = {"title": " ", "stock": -1}
    assert faults_of(lambda: build(Edit, {"title": "T", "changes": wrong})) == expected
    assert faults_of(lambda: Edit("T", Changes(**wrong))) == expected
    assert faults_of(lambda: build(Edit, {"title": "T", "changes": {"size": 1}})) == {
        "changes.size": "is not a known field"
    }
    assert faults_of(lambda: build(Edit, {"title": "T", "changes": 5})) == {"changes": "must be an object"}


def test_faults_inside_lists_and_dicts_are_named_by_their_path():
    expected = {
        "lines.0.product": "must not be blank",
        "lines.0.count": "must be at least 1",
        "lines.2.count": "must be a whole number",
        "tags.1": "must be text",
        "notes.b": "must not be empty",
    }
    lines: list[Any] = [(" ", 0), ("P", 1), ("Q", "x")]
    rest: dict[str, Any] = {"tags": ["a", 1], "notes": {"a": "A", "b": ""}}
    outside = {"lines": [{"product": p, "count": c} for p, c in lines], **rest}
    assert faults_of(lambda: build(Order, outside)) == expected
    assert faults_of(lambda: Order([Line(p, c) for p, c in lines], **rest)) == expected


def test_lists_of_structs_are_built():
    order = build(Order, {"lines": [{"product": "P", "count": 2}], "tags": ["a"], "notes": {"n": "N"}})
    assert order == Order([Line("P", 2)], ("a",), {"n": "N"})


def test_structs_that_are_told_apart_by_a_tag_are_built_and_checked():
    assert build(Draw, {"shape": {"type": "Square", "side": 2}}).shape == Square(2)
    assert faults_of(lambda: build(Draw, {"shape": {"type": "Circle", "radius": 0}})) == {
        "shape": "must be at least 1"
    }
    assert faults_of(lambda: Draw(Circle(0))) == {"shape.radius": "must be at least 1"}


class DrawAll(Command[None]):
    shapes: list[Circle | Square]
    frame: Circle | None = None


def test_unknown_fields_of_structs_that_have_a_tag_are_refused():
    shapes = [{"type": "Square", "side": 2}, {"type": "Circle", "radius": 0, "colour": "red"}]
    assert faults_of(lambda: build(DrawAll, {"shapes": shapes})) == {
        "shapes.1.colour": "is not a known field",
        "shapes.1.radius": "must be at least 1",
    }
    assert faults_of(lambda: build(Draw, {"shape": {"type": "Square", "side": 2, "colour": "red"}})) == {
        "shape.colour": "is not a known field"
    }


def test_a_tag_that_names_no_struct_is_refused():
    tags: tuple[Any, ...] = ("Triangle", None, 1, True, ["Square"])
    for tag in tags:
        shape = {"type": tag, "side": 2}
        assert set(faults_of(partial(build, Draw, {"shape": shape}))) == {"shape"}
    assert faults_of(lambda: build(Draw, {"shape": {"side": 2}})) == {"shape": "lacks the field type"}


def test_a_struct_that_is_alone_may_have_its_tag():
    for frame in ({"type": "Circle", "radius": 1}, {"radius": 1}):
        assert build(DrawAll, {"shapes": [], "frame": frame}).frame == Circle(1)
    assert faults_of(lambda: build(DrawAll, {"shapes": [], "frame": {"type": "Square", "radius": 1}})) == {
        "frame": "is not one of the values it may have"
    }
    assert faults_of(lambda: build(DrawAll, {"shapes": [], "frame": {"type": "Circle", "radius": 0}})) == {
        "frame.radius": "must be at least 1"
    }


def test_strings_of_a_form_are_converted_to_the_fields_types():
    form = {"title": "T", "author": "null", "published": "2024-02-29", "stock": "7", "isbn": None}
    assert build(Add, form, text=True) == Add("T", "null", datetime.date(2024, 2, 29), None, 7)
    wrong = {"title": None, "author": "A", "published": "", "stock": "many"}
    assert faults_of(lambda: build(Add, wrong, text=True)) == {
        "title": "must not be empty",
        "published": "must be a date such as 2024-12-31",
        "stock": "must be a whole number",
    }


class Level(enum.IntEnum):
    LOW = 1


Count = NewType("Count", int)
NamedTitle = NewType("NamedTitle", Title)

TEXTS: list[tuple[Any, str, object]] = [
    (int, "0", 0),
    (int, "-5", -5),
    (int, "9" * 40, int("9" * 40)),
    (Count | None, "5", 5),
    (Annotated[Annotated[int, Meta(ge=1)] | None, Rule(lambda number: number)], "5", 5),
    (int | UnsetType, "5", 5),
    (Literal[1, 2], "2", 2),
    (Level, "1", Level.LOW),
    (float, "5", 5.0),
    (float | None, "-1.5e2", -150.0),
    (int | float, "5", 5),
    (int | float, "1e2", 100.0),
    (decimal.Decimal, "0.10", decimal.Decimal("0.10")),
    (bool, "true", True),
    (bool, "1", True),
    (bool | None, "false", False),
    (bool, "0", False),
    (str, "null", "null"),
    (str | None, "null", "null"),
    (Title | None, "NULL", "NULL"),
    (int | str, "5", "5"),
    (Literal["a", "null"], "null", "null"),
]


def _name(value: object) -> str:
    """Returns a text without addresses, since each test process has other addresses."""
    return re.sub(r" at 0x\w+", "", str(value))


@pytest.mark.parametrize(("kind", "text", "value"), TEXTS, ids=_name)
def test_a_text_is_what_json_would_have_in_its_place(kind: Any, text: str, value: object):
    message = msgspec.defstruct("Texts", [("field", kind)], bases=(Message,), frozen=True)
    found: Any = build(message, {"field": text}, text=True)
    assert (type(found.field), found.field) == (type(value), value)


def _refused_texts() -> list[tuple[Any, str, str]]:
    no_whole = [
        *(
            "null",
            "NULL",
            "",
            "1e2",
            "5.0",
            "10e-1",
            "1.0000000000000000000001",
            "05",
            "+5",
            " 5",
            "5 ",
            "5\n",
        ),
        *("５", "٥", "--5", "-", "-05", "1_000", "0x10", "nan", "true"),
    ]
    no_number = ["nan", "NaN", "inf", "-Infinity", "null", "+1.5", "01.5", ".5", "5.", " 5", "1_0.0", "５"]
    return [
        *((kind, text, "must be a whole number") for kind in (int, int | None, Count) for text in no_whole),
        *((float | None, text, "must be a number") for text in no_number),
        *((decimal.Decimal | None, text, "must be a number") for text in [*no_number, "sNaN"]),
        (decimal.Decimal, "1e1000000000000000000", "is out of range"),
        *((bool | None, text, "must be true or false") for text in ("null", "yes", "2", "", "True", "1.0")),
        (int, "9" * 5000, "is out of range"),
        (float, "-1e400", "is out of range"),
        (datetime.date | None, "null", "must be a date such as 2024-12-31"),
        (datetime.datetime, "1", "must be a date and time such as 2024-12-31T23:59:59"),
        (None, "null", "must be null"),
        (Literal[1, 2], "3", "is not one of the values it may have"),
        (Literal[1, 2], "1.0", "must be a whole number"),
    ]


@pytest.mark.parametrize(("kind", "text", "words"), _refused_texts())
def test_a_text_of_a_form_is_taken_for_nothing_else(kind: Any, text: str, words: str):
    message = msgspec.defstruct("Texts", [("field", kind)], bases=(Message,), frozen=True)
    assert faults_of(lambda: build(message, {"field": text}, text=True)) == {"field": words}


def test_texts_are_read_inside_structs_and_lists_too():
    lines = [{"product": "null", "count": "2"}]
    assert build(Order, {"lines": lines}, text=True) == Order([Line("null", 2)])
    assert faults_of(lambda: build(Order, {"lines": [{"product": "P", "count": "2.0"}]}, text=True)) == {
        "lines.0.count": "must be a whole number"
    }

    class Numbers(Command[None]):
        numbers: list[int | None]

    assert build(Numbers, {"numbers": ["1", None]}, text=True).numbers == [1, None]
    assert faults_of(lambda: build(Numbers, {"numbers": ["1", "null"]}, text=True)) == {
        "numbers.1": "must be a whole number"
    }


def test_none_is_null_in_a_form_as_well():
    assert build(Add, {"title": "T", "author": "A", "isbn": None, "published": None}, text=True) == Add(
        "T", "A"
    )


def test_a_rule_is_found_behind_a_name_for_its_type():
    message = msgspec.defstruct("Texts", [("field", NamedTitle)], bases=(Message,), frozen=True)
    assert faults_of(lambda: build(message, {"field": " "})) == {"field": "must not be blank"}


def test_of_unknown_fields_the_first_are_named_and_the_rest_counted():
    names = [f"x{number}" for number in range(60_000)]
    faults = faults_of(lambda: build(Add, {"stock": -1, **dict.fromkeys(names)}))
    assert faults == {
        **dict.fromkeys(names[:20], "is not a known field"),
        "title": "is missing",
        "author": "is missing",
        "stock": "must be at least 0",
        "": "… and 59,980 more unknown fields",
    }
    assert "" not in faults_of(lambda: build(Find, dict.fromkeys(names[:20])))
    assert faults_of(lambda: build(Find, dict.fromkeys(names[:21])))[""] == "… and 1 more unknown field"


def test_unknown_fields_of_all_the_structs_inside_are_counted_together():
    lines = [{"product": "P", "count": 0, "colour": 1, "size": 2} for _ in range(100)]
    faults = faults_of(lambda: build(Order, {"lines": lines}))
    assert faults.pop("") == "… and 180 more unknown fields"
    assert [name for name, detail in faults.items() if detail == "is not a known field"] == [
        f"lines.{number}.{name}" for number in range(10) for name in ("colour", "size")
    ]
    assert {f"lines.{number}.count" for number in range(100)} < faults.keys()


def test_names_that_the_sender_makes_up_are_cut():
    fits, long = "f" * 100, "x" * 100_000
    assert list(faults_of(lambda: build(Find, {fits: 1, long: 1}))) == [fits, "x" * 99 + "…"]
    notes = {"lines": [], "notes": {long: ""}}
    assert list(faults_of(lambda: build(Order, notes))) == ["notes." + "x" * 99 + "…"]


def test_strings_of_json_are_not_taken_for_numbers():
    wrong = {"title": "T", "author": "A", "stock": "7"}
    assert faults_of(lambda: build(Add, wrong)) == {"stock": "must be a whole number"}


def test_messages_are_frozen():
    command = Add("T", "A")
    with pytest.raises(AttributeError):
        command.title = "U"  # type: ignore[misc]


def test_messages_are_values():
    assert Add("T", "A") == Add("T", "A")
    assert len({Add("T", "A"), Add("T", "A"), Add("U", "A")}) == 2


@pytest.mark.parametrize("surrogate", ["\ud800", "a\udfffb"])
def test_lone_surrogates_are_refused_wherever_they_stand(surrogate: str):
    detail = "must be well-formed Unicode, without lone surrogates"
    assert faults_of(lambda: Add(surrogate, surrogate, stock=-1)) == {
        "title": detail,
        "author": detail,
        "stock": "must be at least 0",
    }
    fields: dict[str, Any] = {"title": "T", "author": "A", "published": surrogate}
    assert faults_of(lambda: build(Add, fields)) == {"published": detail}
    assert faults_of(lambda: Order([], tags=(surrogate,))) == {"tags": detail}
    unknown = faults_of(lambda: build(Find, {surrogate: 1}))
    assert [name.isascii() for name in unknown] == [True]  # the name can be written to a log or an answer


def test_characters_beyond_the_basic_plane_count_as_one():
    assert Add("📚" * 20, "A").title == "📚" * 20
    assert faults_of(lambda: Add("📚" * 21, "A")) == {"title": "must have at most 20 characters"}


def test_data_nested_too_deeply_is_a_fault_and_no_crash():
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    assert faults_of(lambda: build(Anything, {"value": deep})) == {"value": "is nested too deeply"}
    while deep:  # or its destruction recurses as deep
        deep = deep.pop()


def test_a_message_with_a_default_that_is_faulty_says_so():
    class Faulty(Command[None]):
        limit: int = "many"  # type: ignore[assignment]

    assert faults_of(Faulty) == {"limit": "must be a whole number"}


class Anything(Command[None]):
    value: list[Any]


class Colour(enum.Enum):
    RED = "red"


WORDING: list[tuple[Any, Any, str]] = [
    (int, "x", "must be a whole number"),
    (int, True, "must be a whole number"),
    (int, 1.5, "must be a whole number"),
    (int | None, "x", "must be a whole number"),
    (int | str, [], "must be a whole number or text"),
    (int | float, "x", "must be a whole number or a number"),
    (float, "x", "must be a number"),
    (str, None, "must be text"),
    (bool, "yes", "must be true or false"),
    (None, 5, "must be null"),
    (list[int], 5, "must be a list"),
    (dict[str, int], 5, "must be an object"),
    (datetime.date, "2024-13-01", "must be a date such as 2024-12-31"),
    (datetime.date, 5, "must be a date such as 2024-12-31"),
    (datetime.datetime, "x", "must be a date and time such as 2024-12-31T23:59:59"),
    (datetime.time, "x", "must be a time such as 23:59:59"),
    (datetime.timedelta, "x", "must be a duration such as PT1H30M"),
    (Annotated[datetime.datetime, Meta(tz=True)], "2024-01-01T00:00:00", "must have a time zone"),
    (Annotated[datetime.datetime, Meta(tz=False)], "2024-01-01T00:00:00Z", "must not have a time zone"),
    (uuid.UUID, "x", "must be a UUID"),
    (uuid.UUID, 5, "must be a UUID"),
    (decimal.Decimal, "x", "must be a number"),
    (decimal.Decimal, [], "must be a number"),
    (bytes, "!", "must be text in base64"),
    (bytes, 5, "must be text in base64"),
    (Literal["a", "b"], "c", "is not one of the values it may have"),
    (Colour, "blue", "is not one of the values it may have"),
    (Annotated[int, Meta(ge=1)], 0, "must be at least 1"),
    (Annotated[int, Meta(le=1)], 2, "must be at most 1"),
    (Annotated[float, Meta(gt=1)], 1.0, "must be more than 1"),
    (Annotated[float, Meta(lt=1.5)], 1.5, "must be less than 1.5"),
    (Annotated[int, Meta(multiple_of=2)], 3, "must be a multiple of 2"),
    (Annotated[str, Meta(min_length=1)], "", "must not be empty"),
    (Annotated[str, Meta(min_length=2)], "a", "must have at least 2 characters"),
    (Annotated[str, Meta(max_length=1)], "ab", "must have at most 1 character"),
    (Annotated[list[int], Meta(min_length=1)], [], "must not be empty"),
    (Annotated[list[int], Meta(max_length=1)], [1, 2], "must have at most 1 item"),
    (Annotated[dict[str, int], Meta(min_length=2)], {"a": 1}, "must have at least 2 members"),
    (Annotated[str, Meta(pattern="^a$")], "b", "must match the pattern ^a$"),
]


@pytest.mark.parametrize(("kind", "value", "words"), WORDING, ids=str)
def test_faults_are_worded_for_people(kind: Any, value: object, words: str):
    message = msgspec.defstruct("Worded", [("field", kind)], bases=(Message,), frozen=True)
    assert faults_of(lambda: build(message, {"field": value})) == {"field": words}


# Whatever comes in


class Everything(Command[None]):
    text: Title
    whole: int
    flag: bool
    many: float | None
    day: datetime.date
    moment: datetime.datetime
    span: datetime.timedelta
    exact: decimal.Decimal
    name: uuid.UUID
    data: bytes
    colour: Colour
    word: Literal["a", "b"]
    changes: Changes
    lines: list[Line]
    notes: dict[str, Isbn]
    maybe: Line | None = None
    either: int | str | list[int] | None = None


FIELDS = [field.name for field in msgspec.structs.fields(Everything)]
ANY_TEXT = st.text(st.characters(), max_size=8)  # lone surrogates as well
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | ANY_TEXT
    | st.sampled_from(
        ["2024-02-29", "2024-01-01T00:00:00Z", "PT1S", "1e400", "nan", "a", "red", "1.5", "9" * 40]
    )
)
NAMES = ANY_TEXT | st.sampled_from(["title", "isbn", "stock", "product", "count"])
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def _builds_or_reports(fields: dict[str, Any], *, text: bool) -> None:
    try:
        built = build(Everything, fields, text=text)
    except InvalidMessage as error:
        paths = [fault.field for fault in error.faults]
        assert paths
        assert len(set(paths)) == len(paths)
        top = {path.partition(".")[0] for path in paths}
        required = {field.name for field in msgspec.structs.fields(Everything) if field.required}
        assert top >= required - fields.keys()
        json.dumps([*paths, str(error)], ensure_ascii=False).encode()
    else:
        assert fields.keys() <= set(FIELDS)
        assert build(Everything, msgspec.structs.asdict(built)) == built


@given(st.dictionaries(st.sampled_from(FIELDS) | ANY_TEXT, JSON, max_size=len(FIELDS)))
def test_any_json_object_gives_a_message_or_a_report_with_one_fault_a_field(fields: dict[str, Any]):
    _builds_or_reports(fields, text=False)


@given(
    st.dictionaries(
        st.sampled_from(FIELDS) | ANY_TEXT,
        ANY_TEXT | st.none() | SCALARS.filter(lambda v: isinstance(v, str)),
        max_size=20,
    )
)
def test_any_form_gives_a_message_or_a_report_with_one_fault_a_field(fields: dict[str, Any]):
    _builds_or_reports(fields, text=True)


@given(
    st.fixed_dictionaries(
        {"title": JSON, "author": JSON}, optional={"stock": JSON, "published": JSON, "isbn": JSON}
    )
)
def test_code_and_outside_data_are_judged_alike(fields: dict[str, Any]):
    """Constructing with the same values finds the same faults, or an equal message."""

    def result(make: Callable[[], Add]) -> Any:
        try:
            return make()
        except InvalidMessage as error:
            return error.faults

    assert result(lambda: build(Add, fields)) == result(lambda: Add(**fields))


class Due(Command[None]):
    """A message that looks at its fields itself, too."""

    day: datetime.date
    year: int

    def __post_init__(self) -> None:
        if self.day.year != self.year:
            raise ValueError("the day is of another year")
        super().__post_init__()


def test_a_message_that_looks_at_its_own_fields_finds_them_converted():
    assert build(Due, {"day": "2024-01-01", "year": 2024}).day == datetime.date(2024, 1, 1)
    with pytest.raises(InvalidMessage):
        build(Due, {"day": "2024-01-01", "year": "2024"})


class Shade(enum.Enum):
    RED = "r"


class Ledger(Command[None]):
    by_number: dict[int, int] = msgspec.field(default_factory=dict)
    by_price: dict[float, list[dict[int, str]]] = msgspec.field(default_factory=dict)
    by_colour: dict[Shade, int] = msgspec.field(default_factory=dict)
    by_day: dict[datetime.date, int] = msgspec.field(default_factory=dict)


def test_keys_of_json_are_read_as_the_type_of_keys():
    sent = json.loads(
        """{"by_number": {"7": 1, "-2": 2}, "by_price": {"1.5": [{"3": "x"}]}, "by_colour": {"r": 1},
        "by_day": {"2024-12-31": 4}}"""
    )
    built = build(Ledger, sent)
    assert built.by_number == {7: 1, -2: 2}
    assert built.by_price == {1.5: [{3: "x"}]}
    assert (built.by_colour, built.by_day) == ({Shade.RED: 1}, {datetime.date(2024, 12, 31): 4})
    assert Ledger(by_number={7: 1}).by_number == {7: 1}


def test_a_faulty_key_is_told_in_words():
    assert faults_of(
        lambda: build(
            Ledger, {"by_number": {"x": 1}, "by_price": {"1.5": [{"": "x"}]}, "by_colour": {"x": 1}}
        )
    ) == {
        "by_number": "has a key that must be a whole number",
        "by_price.1.5.0": "has a key that must be a whole number",
        "by_colour": "has a key that is not one of the values it may have",
    }

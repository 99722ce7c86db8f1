"""A read model's declaration: what is refused, and what makes another one of it."""

from __future__ import annotations

import datetime
import enum
import os
import subprocess
import sys
import uuid
from typing import Annotated, Any, ClassVar, Literal, Optional, Union

import msgspec
import pytest
from msgspec import Meta, Struct, defstruct, field

from diptych import ReadModel, WiringError, by, join
from diptych.log import Change
from diptych.read.checks import joined_models
from diptych.read.compiled import CompiledReadModel
from diptych.sql.description import Column, Entity


class Attribute:
    """What a read model uses of a mapped attribute."""

    def __init__(self, class_: type, key: str) -> None:
        self.class_ = class_
        self.key = key


class Mapped:
    """A class with an attribute for each of its columns."""

    columns: ClassVar[dict[str, Column]]

    def __init_subclass__(cls) -> None:
        for name in cls.columns:
            setattr(cls, name, Attribute(cls, name))

    @classmethod
    def entity(cls, table: str | None = None, **changes: Column) -> Entity:
        return Entity(
            cls, cls.__name__, table or f"{cls.__name__.lower()}s", ("id",), {**cls.columns, **changes}
        )


def column(
    name: str,
    kind: type | None = str,
    *,
    nullable: bool = False,
    unique: bool = False,
    bytewise: bool = True,
    logged: bool = True,
    texts: dict[Any, str] | None = None,
) -> Column:
    return Column(name, kind, nullable, unique, bytewise, logged, lambda value: value, texts=texts)


def columns(*given: Column) -> dict[str, Column]:
    return {c.name: c for c in given}


class Author(Mapped):
    columns = columns(
        column("id", int, unique=True),
        column("name", unique=True),
        column("nick", unique=True, bytewise=False),
        column("secret", unique=True, logged=False),
        column("code", unique=True, nullable=True),
        column("score", float, unique=True),
        column("country"),
    )


class Book(Mapped):
    columns = columns(
        column("id", int, unique=True),
        column("title", unique=True),
        column("isbn", unique=True),
        column("year", int),
        column("published", datetime.date, nullable=True),
        column("author_id", int),
        column("editor_id", int, nullable=True),
        column("author_code", nullable=True),
        column("author_nick", bytewise=False),
        column("rating", float),
        column("sequel_to", int, nullable=True),
        column("blurb", None),
    )


# Attributes are set by Mapped, which a type checker can't see.
A: Any = Author
B: Any = Book


class Card(Struct):
    title: str
    year: int
    author_name: str | None


AUTHOR_NAME = {"author_name": join(A.name, B.author_id, A.id)}


def read_model(**changes: Any) -> type[ReadModel[Any]]:
    declared = {
        "key": B.title,
        "document": Card,
        "lists": (by(B.title), by(B.year)),
        "joined": AUTHOR_NAME,
        **changes,
    }
    return type("Cards", (ReadModel,), declared)


def projection(
    entity: Entity | None = None, authors: Entity | None = None, **changes: Any
) -> CompiledReadModel:
    return CompiledReadModel(
        read_model(**changes), entity or Book.entity(), {Author: authors or Author.entity()}
    )


# What is compiled


def test_the_declaration_is_compiled():
    cards = projection()
    assert cards.is_joined
    assert cards.columns == ("title", "year")
    assert cards.fields == ("title", "year", "author_name")
    assert cards.tables == {"books", "authors"}
    (compiled,) = cards.joins
    assert compiled == ("author_name", "author_id", Author.entity(), "id", "name")
    plain = projection(document=defstruct("Plain", [("isbn", str)]), joined={}, lists=())
    assert not plain.is_joined
    assert plain.columns == ("isbn", "title")
    assert plain.tables == {"books"}


def test_the_classes_that_are_joined_are_named_once():
    twice = {**AUTHOR_NAME, "b": join(A.country, B.editor_id, A.id), "c": join(B.title, B.sequel_to, B.id)}
    assert joined_models(read_model(joined=twice)) == [Author, Book]
    assert joined_models(read_model(joined={})) == []


def test_a_body_has_the_joined_values():
    row = {"title": "Dune", "year": 1965, "author_name": "Frank", "more": 1}
    assert projection().body(row) == b'{"title":"Dune","year":1965,"author_name":"Frank"}'
    row["author_name"] = None
    assert projection().body(row) == b'{"title":"Dune","year":1965,"author_name":null}'


def test_fields_go_out_under_the_names_that_the_document_gives_them():
    document = defstruct(
        "D",
        [("title", str), ("published", datetime.date | None), ("author_name", str | None, field(name="by"))],
        rename="upper",
        omit_defaults=True,
    )
    row = {"title": "Dune", "published": datetime.date(1965, 8, 1), "author_name": "Frank"}
    assert (
        projection(document=document).body(row) == b'{"TITLE":"Dune","PUBLISHED":"1965-08-01","by":"Frank"}'
    )


def test_a_row_from_the_log_is_readable_if_it_has_every_own_column():
    cards = projection()
    assert cards.readable({"title": "Dune", "year": 1, "isbn": "x", "id": 1})
    assert not cards.readable({"title": "Dune"})
    assert not cards.readable({})


# What a change touches

FRANK = {"id": 1, "name": "Frank", "code": None}


@pytest.mark.parametrize(
    ("before", "after", "touched"),
    [
        (None, FRANK, [("author_id", [1])]),
        (FRANK, None, [("author_id", [1])]),
        ({"id": 1}, {**FRANK, "name": "F."}, [("author_id", [1])]),
        ({"id": 1}, {**FRANK, "id": 2}, [("author_id", [1, 2])]),
    ],
)
def test_a_change_touches_the_rows_of_before_and_after(before, after, touched):
    assert projection().touched(Change(Author.entity(), before, after)) == touched


def test_a_change_touches_rows_through_each_column_that_is_joined_on():
    document = defstruct("D", [(name, str | None) for name in "abcd"])
    joined = {
        "a": join(A.name, B.author_id, A.id),
        "b": join(A.country, B.author_id, A.id),
        "c": join(A.name, B.editor_id, A.id),
        "d": join(A.name, B.author_code, A.code),
    }
    cards = projection(document=document, joined=joined)
    before, after = {"id": 1, "code": None}, {"id": 1, "code": "x"}
    touched = cards.touched(Change(Author.entity(), before, after))
    assert touched == [("author_id", [1]), ("editor_id", [1]), ("author_code", ["x"])]
    # Null joins nothing.
    assert cards.touched(Change(Author.entity(), None, before)) == [("author_id", [1]), ("editor_id", [1])]


def test_a_change_of_another_entity_touches_nothing():
    row = {"id": 1, "title": "Dune"}
    assert projection().touched(Change(Book.entity(), None, row)) == []
    itself = projection(joined={"author_name": join(B.isbn, B.sequel_to, B.id)})
    assert itself.tables == {"books"}
    assert itself.touched(Change(Book.entity(), None, row)) == [("sequel_to", [1])]


def test_a_null_has_a_place_in_every_list_without_a_look_at_each(monkeypatch):
    """Else every row with a null costs a document from SQL the places in all lists."""
    cards = projection(lists=(by(B.author_code), by(B.year)))
    monkeypatch.setattr(cards, "places", lambda _row: pytest.fail("the places were made"))
    for code in (None, "x"):
        assert cards.is_placed({"author_code": code, "year": 1965, "title": "Dune"})
    monkeypatch.setattr(cards, "places", lambda _row: (b"", b""))
    assert not cards.is_placed({"author_code": None, "year": None, "title": "Dune"})


# What is refused


def refused(**declared: Any) -> str:
    with pytest.raises(WiringError) as caught:
        projection(**declared)
    assert all(problem.startswith("Cards: ") for problem in caught.value.problems)
    return "\n".join(problem.removeprefix("Cards: ") for problem in caught.value.problems)


def author_name(value: Any, local: Any, remote: Any) -> dict[str, Any]:
    return {"author_name": join(value, local, remote)}


@pytest.mark.parametrize(
    ("joined", "problem"),
    [
        ([], "`joined` must be a dict of the document's fields: {'author_name': join(…)}"),
        ({"author_name": A.name}, "`joined`: 'author_name' must be made by join(value, local, remote)"),
        (
            author_name("name", B.author_id, A.id),
            "`joined`: the value of 'author_name' must be a mapped attribute, such as Author.name",
        ),
        (
            author_name(A.name, "author_id", None),
            "`joined`: the local of 'author_name' must be a mapped attribute, such as Author.name\n"
            "`joined`: the remote of 'author_name' must be a mapped attribute, such as Author.name",
        ),
        (
            author_name(B.isbn, B.author_id, A.id),
            "`joined`: 'author_name' takes Book.isbn from the row found by Author.id: both must be of one class",
        ),
        (
            author_name(A.name, A.id, A.id),
            "`joined`: the local column of 'author_name' must be one of Book, not Author.id",
        ),
        (
            author_name(A.name, Attribute(Book, "author"), A.id),
            f"`joined`: 'author' is not a mapped column of Book; its columns are: {', '.join(Book.columns)}",
        ),
        (
            author_name(Attribute(Author, "books"), B.author_id, Attribute(Author, "key")),
            "`joined`: 'books' is not a mapped column of Author; its columns are: "
            f"{', '.join(Author.columns)}\n"
            "`joined`: 'key' is not a mapped column of Author; its columns are: "
            f"{', '.join(Author.columns)}",
        ),
        (
            author_name(Attribute(int, "name"), B.author_id, Attribute(int, "id")),
            "`joined`: int, which 'author_name' is of, is unknown to the application",
        ),
        (AUTHOR_NAME | {"x": join(A.name, B.author_id, A.id)}, "`joined`: 'x' is not a field of Card"),
        (
            AUTHOR_NAME | {"year": join(A.id, B.author_id, A.id)},
            "`joined`: 'year' is a column of Book too: give the document's field another name",
        ),
        (
            author_name(A.name, B.author_code, A.country),
            "`joined`: 'author_name': Author.country must be unique by itself, in the database too (unique=True or "
            "the primary key, not deferrable), for one row at most may be joined",
        ),
        (
            author_name(A.name, B.author_code, A.nick),
            "`joined`: 'author_name': Author.nick must be compared byte for byte: make it text of a deterministic "
            "collation (see code_point_text), a number, a date or a UUID",
        ),
        (
            author_name(A.name, B.author_nick, A.name),
            "`joined`: 'author_name': Book.author_nick must be compared byte for byte: make it text of a "
            "deterministic collation (see code_point_text), a number, a date or a UUID",
        ),
        (
            author_name(A.name, B.author_code, A.secret),
            "`joined`: 'author_name': Author.secret must be of a type that the change log gives back as it was",
        ),
        (
            author_name(A.name, B.rating, A.score),
            "`joined`: 'author_name': Author.score must be of one of the types str, int, date, UUID",
        ),
        (
            author_name(A.name, B.author_id, A.code),
            "`joined`: 'author_name': Book.author_id and Author.code must be of the same type",
        ),
    ],
)
def test_a_faulty_join_is_refused(joined, problem):
    assert refused(joined=joined) == problem


def test_the_classes_of_a_faulty_join_are_not_asked_for():
    with pytest.raises(WiringError, match="must be a mapped attribute"):
        joined_models(read_model(joined=author_name("name", B.author_id, A.id)))


def test_a_joined_field_must_allow_none():
    document = defstruct("D", [("title", str), ("author_name", str)])
    assert refused(document=document) == (
        "`joined`: 'author_name' is null where the joined row is missing, but the document's field may not be: "
        "write `… | None`"
    )


IMPOSSIBLE: dict[str, tuple[Column, Any]] = {
    "int values, and none of them fits the document's field 'blurb', bool": (column("blurb", int), bool),
    "int values, and none of them fits the document's field 'blurb', str | None": (
        column("blurb", int, nullable=True), str | None,
    ),
    "datetime values without a time zone, and none of them fits the document's field 'blurb', str": (
        column("blurb", datetime.datetime), str,
    ),
    "datetime values without a time zone, and none of them fits": (
        column("blurb", datetime.datetime), Annotated[datetime.datetime, Meta(tz=True)],
    ),
    "str values, and none of them fits the document's field 'blurb', int": (column("blurb"), int),
    "date values, and none of them fits": (column("blurb", datetime.date), datetime.datetime),
    "UUID values, and none of them fits": (column("blurb", uuid.UUID), str),
    "float values, and none of them fits": (column("blurb", float), int),
    "dict values, and none of them fits": (column("blurb", dict), list[str]),
}  # fmt: skip


@pytest.mark.parametrize("problem", IMPOSSIBLE)
def test_a_field_that_no_row_can_fill_is_refused(problem):
    """Every document would fail, in every pass."""
    blurb, kind = IMPOSSIBLE[problem]
    said = refused(entity=Book.entity(blurb=blurb), **with_blurb(kind))
    assert said.startswith(f"the column 'blurb' has {problem}")
    assert said.endswith(": declare the field as what the column has, or map the column otherwise")
    assert "\n" not in said


def test_a_joined_field_that_no_row_can_fill_is_refused():
    assert refused(joined=author_name(A.id, B.author_id, A.id)) == (
        "`joined`: Author.id has int values, and none of them fits the document's field 'author_name', str | None: "
        "declare the field as what the column has, or map the column otherwise"
    )


def test_a_document_of_types_that_msgspec_does_not_know_is_refused():
    class Mixed(enum.Enum):
        PAIR = (1, 2)

    said = refused(**with_blurb(Mixed))
    assert said.startswith("`document`: msgspec has no place for the types of Card: ")


def test_lists_are_a_tuple_of_orders():
    for lists in (by(B.title), (B.title,), "title", None, ("title",)):
        assert refused(lists=lists) == "`lists` must be a tuple of orders: (by(Book.author), by(Book.title))"
    assert refused(lists=(by(),)) == "by() names no column: name at least one, such as by(Book.id)"


def test_a_list_is_of_own_and_of_joined_columns():
    """Author.name would be taken for a column of books that has the same name."""
    entity = Book.entity(name=column("name"))
    lists = (by(B.year, A.name),)
    assert projection(entity=entity, lists=lists).lists[0].columns[:2] == ("year", "author_name")
    document = defstruct("NoAuthor", [("title", str)])
    assert refused(entity=entity, lists=lists, joined={}, document=document) == (
        "by(year, name): 'name' is of Author: lists are in the order of Book's own columns and of those that "
        "`joined` has: declare a field with join(Author.name, …)"
    )


def test_a_revision_is_a_whole_number():
    for revision in ("2", 1.5, True, None):
        assert refused(revision=revision) == "`revision` must be a whole number"


def test_a_document_has_names():
    document = defstruct("D", [("title", str), ("author_name", str | None)], array_like=True)
    assert refused(document=document) == (
        "`document` must not be array_like: its fields go out under their names"
    )


def test_a_key_comes_back_from_the_log_as_it_was():
    entity = Book.entity(title=column("title", unique=True, logged=False))
    assert (
        refused(entity=entity) == "the key 'title' must be of a type that the change log gives back as it was"
    )


# What makes another declaration of it


class Size(enum.Enum):
    SMALL = "small"


class Sizes(enum.Enum):
    SMALL = "small"
    LARGE = "large"


class Inner(Struct):
    a: int
    more: list[Inner] = []


class Outer(Struct):
    a: int
    more: list[Outer] = []
    b: int = 0


def with_fields(*fields: Any, **config: Any) -> dict[str, Any]:
    return {"document": defstruct("Card", [*fields, ("author_name", str | None)], kw_only=True, **config)}


def with_blurb(kind: Any) -> dict[str, Any]:
    """A field of this type, of a column that may hold anything."""
    return with_fields(("blurb", kind))


YEAR_AND_TITLE = msgspec.structs.replace(
    Book.entity(), unique=frozenset({frozenset({"year", "title"})}), in_entries=("year", "title")
)

NAMED = [
    {},
    {"revision": 2},
    {"key": B.isbn},
    {"key": (B.year, B.title), "entity": YEAR_AND_TITLE},
    {"key": (B.title, B.year), "entity": YEAR_AND_TITLE},
    {"also": (B.isbn,)},
    {"also": (B.isbn, B.id)},
    {"lists": ()},
    {"lists": (by(B.year), by(B.title))},
    {"lists": (by(B.title), by(B.year, B.title))},
    {"entity": Book.entity("old_books")},
    with_fields(("title", str), ("year", int | str)),
    with_fields(("title", str), ("year", int | str)) | {"entity": Book.entity(year=column("year", str))},
    {
        "entity": Book.entity(author_id=column("author_id", str)),
        "authors": Author.entity(id=column("id", unique=True)),
    },
    {"authors": Author.entity("people")},
    {"entity": Book.entity(title=column("title", unique=True, texts={"a": "a"}))},
    {"entity": Book.entity(title=column("title", unique=True, texts={"a": "A"}))},
    {"authors": Author.entity(name=column("name", None))},
    {"joined": author_name(A.country, B.author_id, A.id)},
    {"joined": author_name(A.name, B.editor_id, A.id)},
    {"joined": author_name(A.name, B.author_code, A.code)},
    with_fields(("title", str), ("year", int)),
    with_fields(("year", int), ("title", str)),
    with_fields(("title", str)),
    with_fields(("title", str), rename="upper"),
    with_fields(("title", str), omit_defaults=True),
    with_fields(("title", str), tag=True),
    with_fields(("title", str), tag="card"),
    with_fields(("title", str), tag=True, tag_field="kind"),
    with_fields(("title", str, field(name="t"))),
    with_fields(("title", str, "none")),
    with_fields(("title", str, "nothing")),
    with_fields(("blurb", list[str], field(default_factory=list))),
    *map(
        with_blurb,
        [
            str | None,
            bytes,
            uuid.UUID,
            datetime.datetime,
            Annotated[datetime.datetime, Meta(tz=True)],
            Annotated[str, Meta(max_length=9)],
            Annotated[str, Meta(max_length=8)],
            Annotated[str, Meta(pattern="a")],
            Literal["a"],
            Literal["a", "b"],
            Size,
            Sizes,
            list[str],
            list[str | None],
            tuple[str, ...],
            dict[str, str],
            Any,
            Inner,
            Outer,
            Card,
        ],
    ),
]
# The first one of fields declares what the declaration without changes does.
DECLARED = [changes for i, changes in enumerate(NAMED) if i != 21]


def test_whatever_shapes_documents_keys_or_lists_makes_another_declaration():
    declarations = [projection(**changes).fingerprint for changes in DECLARED]
    assert len(set(declarations)) == len(DECLARED)
    for declaration in declarations:
        assert len(declaration) == 12
        assert int(declaration, 16) >= 0


def test_the_name_of_the_read_model_and_the_layout_make_another_declaration(monkeypatch):
    model = read_model()
    model.__name__ = "Others"
    declarations = {
        projection().fingerprint,
        CompiledReadModel(model, Book.entity(), {Author: Author.entity()}).fingerprint,
    }
    monkeypatch.setattr("diptych.read.fingerprint._LAYOUT", 0)
    assert len(declarations | {projection().fingerprint}) == 3


def test_second_addresses_count_in_any_order():
    declarations = {projection(also=also).fingerprint for also in ((B.isbn, B.id), (B.id, B.isbn))}
    assert len(declarations) == 1


def test_what_does_not_count_makes_no_other_declaration():
    """The same fields in another class, its docstring, descriptions, and other ways to write the same."""

    class Renamed(Struct, frozen=True, kw_only=True, gc=False):
        """A card."""

        title: Annotated[str, Meta(title="Title", description="of the book", examples=["Dune"])]
        year: int
        author_name: Optional[str]  # noqa: UP045

    other = with_fields(("title", Union[int, None, str]), ("year", int))  # noqa: UP007
    one = with_fields(("title", str | int | None), ("year", int))
    assert projection(document=Renamed).fingerprint == projection().fingerprint
    assert projection(**one).fingerprint == projection(**other).fingerprint
    assert projection(**NAMED[21]).fingerprint == projection().fingerprint
    joined = AUTHOR_NAME | {"country": join(A.country, B.author_id, A.id)}
    both: dict[str, Any] = {"document": defstruct("D", [(name, str | None) for name in joined])}
    turned = dict(reversed(joined.items()))
    assert projection(joined=joined, **both).fingerprint == projection(joined=turned, **both).fingerprint


def test_unions_count_in_any_order():
    """A cache of typing's gives the one that was written first, in whatever module."""
    one, other = with_blurb(list[str | int | None]), with_blurb(list[int | str | None])
    assert projection(**one).fingerprint == projection(**other).fingerprint


PROGRAM = """
import sys
sys.path.insert(0, "tests/unit/read")
import test_compiled as t
documents = [
    {"frozenset": t.with_fields(("blurb", t.Any, frozenset("abcdefgh")))["document"]},
    {"factory": t.with_fields(("title", str, t.field(default_factory=lambda: "x")))["document"]},
    {"type": t.with_fields(("title", t.Any, t.Attribute(int, "x")))["document"]},
    {"custom": t.with_fields(("blurb", t.Attribute))["document"]},
]
made = [t.projection(**changes).fingerprint for changes in t.DECLARED]
made += [t.projection(document=d).fingerprint for named in documents for d in named.values()]
print(" ".join(made))
"""


def test_the_declaration_is_the_same_in_every_process():
    """Whatever the seed of its hashes, and wherever its objects are in memory."""
    shown = {
        subprocess.run(
            [sys.executable, "-c", f"x = [object() for _ in range({size})]\n{PROGRAM}"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, size in (("1", 0), ("2", 100_000), ("3", 1))
    }
    (made,) = shown
    assert made.split()[: len(DECLARED)] == [projection(**changes).fingerprint for changes in DECLARED]
    assert len(set(made.split())) == len(DECLARED) + 4


def test_the_declaration_stays_as_it_is():
    """Another hash here is a rebuild of everybody's read models: raise the layout if that is meant."""
    assert projection().fingerprint == "345518a53c3c"

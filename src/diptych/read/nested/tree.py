"""The compiled nested fields of a read model, and the ways back from a changed row to the documents that have it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import inspect

from diptych.read.declaration.nested import Computed, Nested
from diptych.sql.conditions.tree import Condition, declared, fitted
from diptych.sql.description import Entity, Row, Sorting, Unreadable
from diptych.sql.schema.relationships import Link, link_of

Entities = Mapping[type, Entity]

NUMBERS = ("count", "total", "average")
"""Kinds of fields that are made from the number of rows and the sum of a column."""


class Step(NamedTuple):
    """A step from rows to others: to the rows of ``entity`` whose ``remote`` equals the ``local`` of a row."""

    local: str
    entity: Entity
    remote: str


class Way(NamedTuple):
    """The way back from a changed row of ``table``.

    A document is altered if its row leads, by ``steps``, to a row whose column ``local`` equals the ``remote`` of the
    changed row. Without steps that column is the document's own.
    """

    name: str
    table: str
    remote: str
    steps: tuple[Step, ...]
    local: str


class ComputedField(NamedTuple):
    """A compiled ``Computed``: the ``function`` gets the values of these columns."""

    name: str
    function: Callable[..., Any]
    columns: tuple[str, ...]

    def value(self, row: Row) -> Any:
        """Returns the value of the field for a row; in the place of an error, what fits no field."""
        given = [row[name] for name in self.columns]
        unreadable = next((value for value in given if isinstance(value, Unreadable)), None)
        if unreadable is not None:
            return unreadable  # the function might make a text of it
        try:
            return self.function(*given)
        except Exception as error:
            return Unreadable(f"can't be computed ({type(error).__name__})")


class Body(NamedTuple):
    """The documents of rows: their ``columns`` behind the names in JSON, and their fields that are no columns.

    ``ends`` has the names in JSON and the values of fields below the declared depth, ``encoded`` the names in JSON of
    all fields.
    """

    columns: tuple[tuple[str, str], ...]
    nested: tuple[NestedField, ...]
    computed: tuple[ComputedField, ...]
    ends: tuple[tuple[str, Any], ...]
    encoded: Mapping[str, str]

    @property
    def in_use(self) -> tuple[str, ...]:
        """The columns of a row that its document needs."""
        own = (name for _, name in self.columns)
        linking = (field.steps[0].local for field in self.nested)
        given = (name for field in self.computed for name in field.columns)
        return tuple(dict.fromkeys((*own, *linking, *given)))


class NestedField(NamedTuple):
    """A compiled ``Nested``: the field ``name`` is made from the rows to which ``steps`` lead.

    ``body`` tells what is made of a row, None if the field has the values of ``column``, or a number. ``sorted_by``
    ends with the primary key, so that no two rows are equal.
    """

    name: str
    kind: str
    steps: tuple[Step, ...]
    column: str | None
    body: Body | None
    sorted_by: tuple[Sorting, ...]
    limit: int | None
    where: Condition | None
    places: int | None

    @property
    def entity(self) -> Entity:
        """The class of the rows."""
        return self.steps[-1].entity

    def has_same_rows(self, other: NestedField) -> bool:
        """Returns True if both fields are made from the same related rows, their order and limits aside."""
        return self._of_rows() == other._of_rows()

    def _of_rows(self) -> list[Any]:
        steps = [[step.local, step.entity.table, step.remote] for step in self.steps]
        return [steps, [] if self.where is None else declared(self.where, self.entity)]

    @property
    def nothing(self) -> Any:
        """The value of the field without rows."""
        return {"many": [], "count": 0, "total": 0}.get(self.kind)

    def declared(self) -> list[Any]:
        """Returns the field for the fingerprint, as values for JSON."""
        body = self.body
        steps, where = self._of_rows()
        return [
            self.name,
            self.kind,
            steps,
            self.column,
            [] if body is None else [list(body.columns), *(field.declared() for field in body.nested)],
            [] if body is None else list(map(declared_computed, body.computed)),
            [[sorting.name, sorting.descending, sorting.nulls_first] for sorting in self.sorted_by],
            self.limit,
            where,
            self.places,
        ]


def declared_computed(field: ComputedField) -> list[Any]:
    """Returns the field for the fingerprint; what the function does is a matter of the read model's revision."""
    return [field.name, getattr(field.function, "__qualname__", ""), *field.columns]


def followed(relationship: Any) -> Link | str:
    """Returns the link of a relationship, or the reason why it can't be followed."""
    if not (hasattr(relationship, "key") and hasattr(relationship, "class_")):
        return f"{relationship!r} is no mapped attribute: write a relationship with its class, such as Book.reviews"
    link = link_of(relationship.class_, str(relationship.key))
    if not isinstance(link, str) and getattr(relationship.class_, relationship.key) is not relationship:
        return f"{relationship} has something added: name the relationship itself, and choose its rows by `where=`"
    return link


def nested_models(nested: Mapping[str, Nested | Computed]) -> Iterator[type]:
    """Yields the mapped classes whose rows nested fields need. The declaration must have no fault of its form."""
    for field in nested.values():
        if isinstance(field, Computed):
            continue
        link = followed(field.relationship)
        if not isinstance(link, str):
            yield from (model for model in (link.association, link.element) if model is not None)
        yield from nested_models(field.nested)


def struct_of(hint: Any) -> type[msgspec.Struct] | None:
    """Returns the struct in the type of a field: itself, the struct or None, or a list or tuple of it."""
    found = [kind.cls for kind in _parts(inspect.type_info(hint)) if isinstance(kind, inspect.StructType)]
    return found[0] if len(found) == 1 else None


def _parts(info: Any, *, in_list: bool = False) -> Iterator[Any]:
    if isinstance(info, inspect.Metadata):
        yield from _parts(info.type, in_list=in_list)
    elif isinstance(info, inspect.UnionType):
        for each in info.types:
            yield from _parts(each, in_list=in_list)
    elif isinstance(info, inspect.ListType | inspect.VarTupleType) and not in_list:
        yield from _parts(info.item_type, in_list=True)
    else:
        yield info


def body_of(
    document: type[msgspec.Struct],
    nested: Mapping[str, Nested | Computed],
    entities: Entities,
    others: Iterable[str] = (),
) -> Body:
    """Compiles the fields of a document. The declaration must be without faults.

    ``others`` are fields whose values come from elsewhere.
    """
    fields = msgspec.structs.fields(document)
    hints = {field.name: field.type for field in fields}
    left_out = {*nested, *others}
    encoded = {field.name: field.encode_name for field in fields}
    return Body(
        tuple((field.encode_name, field.name) for field in fields if field.name not in left_out),
        tuple(
            _field(name, declaration, hints[name], entities)
            for name, declaration in nested.items()
            if isinstance(declaration, Nested) and declaration.depth != 0
        ),
        tuple(
            ComputedField(name, given.function, tuple(str(column.key) for column in given.columns))
            for name, given in nested.items()
            if isinstance(given, Computed)
        ),
        tuple(
            (encoded[name], [] if given.kind == "many" else None)
            for name, given in nested.items()
            if isinstance(given, Nested) and given.depth == 0
        ),
        encoded,
    )


def _field(name: str, given: Nested, hint: Any, entities: Entities) -> NestedField:
    link = followed(given.relationship)
    if isinstance(link, str):
        raise ValueError(link)
    steps = steps_of(link, entities)
    entity = steps[-1].entity
    column = None if given.column is None else str(given.column.key)
    body = None
    if given.kind in ("one", "many") and column is None:
        document = struct_of(hint)
        if document is None:
            raise ValueError(name)
        body = body_of(document, _inner(name, given), entities)
    order = given.order
    if given.kind in ("minimum", "maximum") and column is not None:
        order = (Sorting(column, entity.model, given.kind == "maximum", nulls_first=False),)
    tied = (Sorting(key, entity.model) for key in entity.primary_key)
    return NestedField(
        name,
        given.kind,
        steps,
        column,
        body,
        () if given.kind in NUMBERS else (*order, *tied),
        1 if given.kind in ("one", "minimum", "maximum") else given.limit,
        None if given.where is None else fitted(given.where, entity),
        given.places,
    )


def _inner(name: str, given: Nested) -> Mapping[str, Nested | Computed]:
    """Returns the nested fields of a row's own document; with a depth, the field itself once more."""
    if given.depth is None:
        return given.nested
    return {**given.nested, name: msgspec.structs.replace(given, depth=given.depth - 1)}


def steps_of(link: Link, entities: Entities) -> tuple[Step, ...]:
    """Returns the steps along a relationship: one, or two over the rows that link many to many."""
    element = entities[link.element]
    if link.association is None:
        return (Step(link.local, element, link.remote),)
    return (Step(link.local, entities[link.association], link.near), Step(link.far, element, link.remote))


def ways_of(fields: Iterable[NestedField], before: Sequence[Step] = ()) -> Iterator[Way]:
    """Yields the ways back from the rows that these fields are made from.

    ★ A row that moves from one parent to another is found at both, since its entry in the log has its linking columns
    before and after the change.
    """
    for field in fields:
        path = (*before, *field.steps)
        for n in range(len(before), len(path)):
            step = path[n]
            name = (
                step.local
                if n == 0
                else "→".join(f"{s.local}={s.entity.table}.{s.remote}" for s in path[: n + 1])
            )
            yield Way(name, step.entity.table, step.remote, path[:n], step.local)
        if field.body is not None:
            yield from ways_of(field.body.nested, path)


def tables_of(fields: Iterable[NestedField]) -> Iterator[str]:
    """Yields the tables of the rows that these fields are made from."""
    for field in fields:
        yield from (step.entity.table for step in field.steps)
        yield from tables_of(field.body.nested if field.body is not None else ())


def mapped_otherwise(fields: Iterable[NestedField]) -> dict[str, dict[str, str]]:
    """Returns, by table, the attributes of the rows of these fields that have columns of other names."""
    found: dict[str, dict[str, str]] = {}
    for field in fields:
        for entity in (step.entity for step in field.steps):
            columns = sorted(entity.columns.items())
            named = {name: column.in_table for name, column in columns if column.in_table not in ("", name)}
            found |= {entity.table: named} if named else {}
        found |= mapped_otherwise(field.body.nested if field.body is not None else ())
    return dict(sorted(found.items()))


def columns_of(field: NestedField) -> tuple[str, ...]:
    """Returns the columns of the related rows that are read for a field."""
    own = () if field.body is None else field.body.in_use
    return tuple(dict.fromkeys((*own, *(() if field.column is None else (field.column,)))))

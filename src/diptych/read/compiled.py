"""The compiled declaration of a read model: how a row becomes a document, a key and list entries.

Both routes to an answer, Redis and SQL, use the same compiled declaration, so they can't drift apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from diptych.errors import WiringError
from diptych.log import Change
from diptych.messages.validation import worded
from diptych.read.address_checks import key_attributes
from diptych.read.addresses import Address, CompositeKey, Key, Located, SecondAddress
from diptych.read.checks import check_declaration
from diptych.read.declaration import Collection, Declaration, JoinedField, ListOrder
from diptych.read.fingerprint import declaration_hash
from diptych.read.fitting import in_json
from diptych.read.lists.elements import collection_of, with_element
from diptych.read.lists.index import ListIndex
from diptych.read.lists.joined import in_fields, with_fields
from diptych.read.lists.ordering import ALWAYS_SORTABLE
from diptych.read.nested.columns import sortable
from diptych.read.nested.tree import body_of, declared_computed, mapped_otherwise, tables_of, ways_of
from diptych.read.set_aside import KEYLESS, Misfit, Notices, marked, reason_of
from diptych.sql.conditions.parse import condition_of
from diptych.sql.conditions.tree import declared, fitted, names_in, predicate_of
from diptych.sql.description import Column, Entity, Row

_encode = msgspec.json.Encoder().encode


class CompiledReadModel:
    """A compiled declaration. Raises ``WiringError`` with every fault of the declaration.

    ``joined`` are the entities of the classes that ``joined_models`` names. ``addresses`` are the key and, behind it,
    the columns of ``also``. ``columns`` are the own columns that documents, addresses, lists and conditions need;
    ``tables`` all that documents are made from; ``fingerprint`` is another text as soon as any of it is declared
    otherwise. ``where`` is the condition of rows with documents, None for all rows.
    """

    def __init__(
        self,
        model: type[Declaration],
        entity: Entity,
        joined: Mapping[type, Entity] = MappingProxyType({}),
    ) -> None:
        joined = {entity.model: entity, **joined}
        check_declaration(model, entity, joined)
        self.name = model.__name__
        self.model = model
        self.entity = entity
        self.document = model.document
        keys = [entity.columns[attribute.key] for attribute in key_attributes(model)]
        self.key: Address = Key(keys[0]) if len(keys) == 1 else CompositeKey(self.name, keys)
        self.also = {attribute.key: SecondAddress(entity.columns[attribute.key]) for attribute in model.also}
        self.addresses: tuple[Address, ...] = (self.key, *self.also.values())
        fields = msgspec.structs.fields(model.document)
        self.fields = tuple(field.name for field in fields)
        made = body_of(model.document, model.nested, joined, model.joined)
        self.nested, self._computed = made.nested, made.computed
        self._encoded = [(field.encode_name, field.name) for field in fields]
        self._types = {field.name: field.type for field in fields}
        self.where = None if model.where is None else fitted(condition_of(model.where), entity)
        self._has = None if self.where is None else predicate_of(self.where, entity)
        self.joins = _joins(model, joined)
        self.lists = self._indexes(joined)
        self.collections = tuple({c.field: c for i in self.lists if (c := i.collection) is not None}.values())
        self.columns = self._columns_in_use()
        self.tables = self._tables_in_use()
        self.fingerprint = declaration_hash(self.name, self._declared(), self.document)
        totals = frozenset(field.name for field in self.nested if field.kind == "total")
        self._ordered = _placed_types(self.lists, totals)
        ways = list(ways_of(self.nested))
        self.ways = {way.name: way for way in ways if way.steps}
        self._followed = [
            *((join.entity.table, join.remote, join.local) for join in self.joins),
            *(followed for each in self.collections for followed in _followed(each)),
            *((way.table, way.remote, way.name) for way in ways),
        ]
        self.notices = Notices(self.name, entity.table)

    def _indexes(self, entities: Mapping[type, Entity]) -> tuple[ListIndex, ...]:
        listed = with_fields(self.entity, self.joins, sortable(self.nested))
        orders = [in_fields(order, self.entity, self.model.joined) for order in self.model.lists]
        collections = (collection_of(order, entities) for order in orders)
        return tuple(
            ListIndex(order, self.key.names, with_element(listed, collection), self.where, collection)
            for order, collection in zip(orders, collections, strict=True)
        )

    def _columns_in_use(self) -> tuple[str, ...]:
        elsewhere = {*self.model.joined, *self.model.nested}
        own = (name for name in self.fields if name not in elsewhere)
        ordered = (n for index in self.lists for n in index.columns if n in self.entity.columns)
        conditions = (self.where, *(index.where for index in self.lists))
        compared = (name for where in conditions for name in names_in(where))
        linking = (collection.local for collection in self.collections)
        nested = (field.steps[0].local for field in self.nested)
        given = (name for field in self._computed for name in field.columns)
        needed = (*own, *self.key.names, *self.also, *ordered, *compared, *linking, *nested, *given)
        return tuple(dict.fromkeys(needed))

    def _tables_in_use(self) -> frozenset[str]:
        own = (self.entity.table, *(join.entity.table for join in self.joins))
        return frozenset((*own, *_tables_of(self.collections), *tables_of(self.nested)))

    @property
    def is_joined(self) -> bool:
        """True if documents or lists have values of other rows: the change of a row alone does not make them then."""
        return bool(self.joins or self.collections or self.nested)

    def leaves_out(self, row: Row) -> bool:
        """Returns True for a row without a document: its read model's condition does not hold."""
        return self._has is not None and not self._has(row)

    def places(self, row: Row) -> tuple[bytes | None, ...]:
        """Returns the row's place in each list, see ``ListIndex.sort_key``."""
        return tuple(index.sort_key(row) for index in self.lists)

    def is_placed(self, row: Row) -> bool:
        """Says if no list lacks a place for the row; quick for nulls and values of types in ``ALWAYS_SORTABLE``."""
        for name, kinds in self._ordered.items():
            if type(row[name]) not in kinds:
                return b"" not in self.places(row)
        return True

    def body(self, row: Row, places: Sequence[bytes | None] = ()) -> bytes:
        """Returns the document of a row as JSON. Joined values are in the row under the names of their fields.

        For a row that does not fit, or has an empty place among ``places``, returns the ``marked`` misfit instead.
        Raises ``KeyError`` if the row lacks a column.
        """
        if self._computed:
            row = {**row, **{field.name: field.value(row) for field in self._computed}}
        values = {encoded: row[name] for encoded, name in self._encoded}
        try:
            body = self._written(values)
        except Exception as error:
            return marked(self._misfit(row, error))
        if b"" not in places:
            return body
        return marked(self.lists[list(places).index(b"")].misfit(row))

    def _written(self, values: dict[str, Any]) -> bytes:
        try:
            return _encode(msgspec.convert(values, self.document))
        except msgspec.ValidationError:
            if (in_numbers := in_json(values)) == values:
                raise
            return _encode(msgspec.convert(in_numbers, self.document))

    def _misfit(self, row: Row, error: Exception) -> Misfit:
        """Returns the misfitting field, found by trying each: the error of the whole may not name the field."""
        for name, kind in self._types.items():
            try:
                _encode(msgspec.convert(in_json(row[name]), kind))
            except msgspec.ValidationError as misfit:
                return Misfit(name, reason_of(row[name], worded(misfit)))
            except Exception as misfit:
                return Misfit(
                    name, reason_of(row[name], f"can't be written as JSON ({type(misfit).__name__})")
                )
        if isinstance(error, msgspec.ValidationError):
            return Misfit("", worded(error))  # the document's own check of several fields together
        return Misfit("", f"can't be made ({type(error).__name__})")

    def readable(self, row: Row) -> bool:
        """Says if a row, read back from the change log, has every own column in use."""
        return all(name in row for name in self.columns)

    def touched(self, change: Change) -> list[tuple[str, list[Any]]]:
        """Returns own columns and values: rows with these values have documents altered by a change of a joined row.

        The values are of the joined row before and after the change. For an element that rows are linked to many to
        many, the name of the collection is in the place of a column. Empty for a change of an entity that is not
        joined; the effect of a change of an own row on its own document is not included. Raises ``KeyError`` for a
        change whose row in the log lacks a column that is joined on.
        """
        found: dict[str, dict[Any, None]] = {}
        images = [image for image in (change.before, change.after) if image is not None]
        for table, remote, local in self._followed:
            if table == change.entity.table:
                values = [image[remote] for image in images]
                found.setdefault(local, {}).update((v, None) for v in values if v is not None)
        return [(column, list(values)) for column, values in found.items() if values]

    def addresses_of(self, row: Row) -> list[bytes]:
        """Returns the keys in Redis of a row's document and of its copies, the read model's key first."""
        return [self.key.of(row), *(at for each in self.also.values() if (at := each.of(row)) != KEYLESS)]

    def located(self, row: Row) -> dict[bytes, Located]:
        """Returns the row's value of each address that it has, by the keys in Redis."""
        return {
            where: Located(address, address.value_of(row))
            for address in self.addresses
            if (where := address.of(row)) != KEYLESS or address is self.key
        }

    def second_address(self, names: Sequence[str]) -> Address:
        """Returns the only second address that is named. Raises ``TypeError``, and ``WiringError`` for another."""
        if len(names) != 1:
            raise TypeError(
                f"get of {self.name} takes the key, or one column of `also` by its name"
                + (f", not {', '.join(names)} together" if names else "")
            )
        [name] = names
        if name not in self.also:
            raise WiringError(
                [f"{self.name} has no documents by {name!r}: add the unique column to `also` of {self.name}"]
            )
        return self.also[name]

    def list_by(self, order: ListOrder | str | None) -> ListIndex:
        """Returns the list of this order or name, or the first for None. Raises ``WiringError`` for another."""
        wanted = in_fields(order, self.entity, self.model.joined) if isinstance(order, ListOrder) else None
        for index in self.lists:
            if order is None or order == index.name:
                return index
            if wanted is not None and wanted.selects_as(index.order):
                return index
        known = ", ".join(index.name for index in self.lists) or "none"
        raise WiringError(
            [f"{self.name} has no list {order or ''}: add it to `lists` of {self.name} (its lists: {known})"]
        )

    def _declared(self) -> dict[str, Any]:
        """Returns the declaration of keys, columns, lists and joins for the fingerprint, as values for JSON."""
        keys = [self._typed(self.entity, name) for name in self.key.names]
        given: dict[str, Any] = {}
        if self.also:
            given["also"] = [self._typed(self.entity, name) for name in sorted(self.also)]
        if self.collections:
            given["collections"] = [self._linked(each) for each in self.collections]
        if self.where is not None:
            given["where"] = declared(self.where, self.entity)
        if self.model.nested:
            given["nested"] = [field.declared() for field in self.nested]
            given["computed"] = list(map(declared_computed, self._computed))
            given |= {"mapped": mapped} if (mapped := mapped_otherwise(self.nested)) else {}
        return given | {
            "table": self.entity.table,
            "key": keys[0] if len(keys) == 1 else keys,
            "fields": {name: self._typed(self.entity, name) for name in self.columns},
            "lists": [
                [
                    index.name,
                    *(
                        [*self._typed(index.entity, name), *direction]
                        for name, direction in zip(index.columns, index.declared(), strict=True)
                    ),
                    *([] if index.own_where is None else [{"where": declared(index.own_where, self.entity)}]),
                ]
                for index in self.lists
            ],
            "joins": [
                [
                    join.field,
                    self._typed(self.entity, join.local),
                    join.entity.table,
                    self._typed(join.entity, join.remote),
                    self._typed(join.entity, join.value),
                ]
                for join in sorted(self.joins, key=lambda join: join.field)
            ],
            "revision": self.model.revision,
        }

    def _linked(self, collection: Collection) -> list[Any]:
        through = collection.association
        return [
            collection.name,
            self._typed(self.entity, collection.local),
            collection.entity.table,
            self._typed(collection.entity, collection.remote),
            self._typed(collection.entity, collection.value),
            [] if through is None else [through.entity.table, through.near, through.far],
        ]

    def _typed(self, entity: Entity, name: str) -> list[str]:
        column = entity.columns[name]
        kind, texts = column.type, column.texts or {}
        # An attribute that is mapped to another column has other values.
        named = name if column.in_table in ("", name) else f"{name}={column.in_table}"
        return [named, kind.__qualname__ if isinstance(kind, type) else "", *sorted(texts.values())]


def _surely_placed(column: Column, totals: frozenset[str]) -> tuple[type, ...]:
    """Returns the types of which every value of a column has a place in a list.

    A total of whole numbers, unlike a column of them, may have more than 64 bits.
    """
    kinds = [column.type] if column.type in ALWAYS_SORTABLE and column.name not in totals else []
    return tuple(kind for kind in (*kinds, type(None) if column.nullable else None) if kind is not None)


def _tables_of(collections: Iterable[Collection]) -> Iterator[str]:
    for collection in collections:
        yield collection.entity.table
        if collection.association is not None:
            yield collection.association.entity.table


def _followed(collection: Collection) -> list[tuple[str, str, str]]:
    """Returns tables whose changes alter entries: with a column there, and what it equals of the rows."""
    elements, through = collection.entity.table, collection.association
    if through is None:
        return [(elements, collection.remote, collection.local)]
    # ★ A row that was linked until now is found by the change that has ended the link, which is in the log as well.
    return [
        (through.entity.table, through.near, collection.local),
        (elements, collection.remote, collection.name),
    ]


def _joins(model: type[Declaration], entities: Mapping[type, Entity]) -> tuple[JoinedField, ...]:
    return tuple(
        JoinedField(name, join.local.key, entities[join.remote.class_], join.remote.key, join.value.key)
        for name, join in model.joined.items()
    )


def _placed_types(lists: Iterable[ListIndex], totals: frozenset[str]) -> dict[str, tuple[type, ...]]:
    """Returns the types of values that surely have a place in these lists, by the names of their columns."""
    return {
        name: _surely_placed(index.entity.columns[name], totals)
        for index in lists
        for name in index.own_columns
    }

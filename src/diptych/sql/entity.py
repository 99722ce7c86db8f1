"""Mapped classes, read once: their columns, the conversion of values to them, and rows made into instances."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import ColumnProperty, Mapper, configure_mappers, make_transient_to_detached

from diptych.errors import Fault, InvalidValueError, UnknownColumnError, WiringError
from diptych.sql.comparison import difference, has_code_point_order
from diptych.sql.description import Column, Entity
from diptych.sql.mapping import is_fetched, warn_of_refusals
from diptych.sql.real_columns import RealColumn, real_columns
from diptych.sql.values import ColumnValues, python_type_of, stored_texts

M = TypeVar("M")


class MappedEntity:
    """A mapped class with its table, in a database of this name.

    Raises ``WiringError`` for mappings that the change log can't follow.
    """

    def __init__(self, model: type, mapper: Mapper[Any], database: str) -> None:
        self.model = model
        self.name = model.__name__
        configure_mappers()  # instances can't be made before relationships are resolved
        self.mapper = mapper
        self._check_plain(mapper)
        attributes: dict[str, sa.Column[Any]] = {
            prop.key: column
            for prop in mapper.iterate_properties
            if isinstance(prop, ColumnProperty) and isinstance(column := prop.columns[0], sa.Column)
        }
        names = {column: key for key, column in attributes.items()}
        self.table: sa.Table = mapper.local_table  # type: ignore[assignment]
        self.full_name = str(self.table.fullname)
        # In the table's order, since rows are read and logged in it.
        self.columns = {names[column]: column for column in self.table.columns if column in names}
        self.primary_key = tuple(names[column] for column in _primary_key_of(mapper, self.table))
        self.unique_columns = tuple(_unique_alone(self.table, self.columns))
        self.identifying = tuple(dict.fromkeys((*self.primary_key, *_in_unique(self.table, names))))
        # Triggers that run after the statement are not in what it returns: such a row is read again.
        self.is_finished_by_database = any(map(is_fetched, self.columns.values()))
        self._described: dict[str, Entity] = {}
        self._real: Mapping[str, RealColumn] = {}
        self._names = names
        self._values = {name: ColumnValues(column, database) for name, column in self.columns.items()}

    async def look_at_table(self, connection: AsyncConnection) -> None:
        """Reads what the database has as the table's columns, for ``describe`` and the order of lists."""
        self._real = await real_columns(connection, self.table)
        self._described.clear()

    def has_code_point_order(self, name: str, dialect: sa.Dialect) -> bool:
        """Whether the database orders this column by code point without being told."""
        column = self.columns[name]
        return has_code_point_order(column, dialect, self._real.get(column.name))

    @functools.cached_property
    def is_checked_late(self) -> bool:
        """Whether a constraint of the table may look at what others have committed as late as at the commit.

        PostgreSQL's foreign keys don't: a transaction that is REPEATABLE READ checks them in its own snapshot.
        """
        constraints = (c for c in self.table.constraints if not isinstance(c, sa.ForeignKeyConstraint))
        return any(constraint.deferrable for constraint in constraints)

    @functools.cached_property
    def related_tables(self) -> frozenset[str]:
        """The tables that a statement on this one may depend on: itself, and those that foreign keys join to it."""
        referring = {
            table.fullname
            for table in self.table.metadata.tables.values()
            if any(_refers_to(key, self.table) for key in table.foreign_keys)
        }
        return frozenset({self.full_name, *referring, *map(_target_of, self.table.foreign_keys)})

    def describe(self, dialect: sa.Dialect) -> Entity:
        """The columns as the other rooms see them."""
        if dialect.name not in self._described:
            self._described[dialect.name] = Entity(
                model=self.model,
                name=self.name,
                table=self.full_name,
                primary_key=self.primary_key,
                columns={name: self._describe_column(name, dialect) for name in self.columns},
                identifying=self.identifying,
            )
        return self._described[dialect.name]

    def _describe_column(self, name: str, dialect: sa.Dialect) -> Column:
        column = self.columns[name]
        there = column.type.dialect_impl(dialect)
        compared = difference(column, dialect, self._real.get(column.name))
        return Column(
            name=name,
            type=python_type_of(there),
            nullable=bool(column.nullable),
            unique=name in self.unique_columns,
            bytewise=not compared,
            compared=compared,
            logged=self._values[name].logged,
            fit=self._values[name].fit,
            has_one_form=self._values[name].has_one_form,
            zoned=bool(getattr(there, "timezone", False)),
            texts=stored_texts(there) if isinstance(there, sa.Enum) else None,
        )

    def check_names(self, names: Iterable[Any]) -> None:
        """Raises ``UnknownColumnError`` unless each is a mapped attribute."""
        unknown = [name for name in names if not isinstance(name, str) or name not in self.columns]
        if unknown:
            raise UnknownColumnError(self.name, [str(name) for name in unknown], list(self.columns))

    def convert(self, values: Mapping[str, Any], *, complete: bool = False) -> dict[sa.Column[Any], Any]:
        """The values in their columns' types, ``complete`` if they are to be all that a new row needs.

        Raises ``UnknownColumnError``, and ``InvalidValueError`` that names every misfit.
        """
        self.check_names(values)
        faults: list[Fault] = []
        if complete:
            values = {n: v for n, v in values.items() if v is not None or n not in self.primary_key}
            missing = (n for n, v in self._values.items() if v.is_required and n not in values)
            faults += [Fault(name, "is missing") for name in missing]
        converted: dict[sa.Column[Any], Any] = {}
        for name, value in values.items():
            try:
                converted[self.columns[name]] = self._values[name].convert(value)
            except ValueError as error:
                faults.append(Fault(name, str(error)))
        if faults:
            raise InvalidValueError(self.name, faults)
        return converted

    def convert_lookup(self, values: Mapping[str, Any]) -> dict[sa.Column[Any], Any] | None:
        """Values that are looked for, in their columns' types; None if no row can hold one of them.

        Raises ``InvalidValueError`` for a value of another type, ``UnknownColumnError``.
        """
        self.check_names(values)
        converted: dict[sa.Column[Any], Any] = {}
        for name, value in values.items():
            try:
                converted[self.columns[name]] = self._values[name].convert_lookup(value)
            except ValueError as error:
                raise InvalidValueError(self.name, [Fault(name, str(error))]) from None
        held = (v is None or self.holds(self._names[c], v) for c, v in converted.items())
        return converted if all(held) else None

    def holds(self, name: str, value: Any) -> bool:
        """Whether the column can hold this value; PostgreSQL fails on a look-up of one that it can't."""
        return self._values[name].holds(value)

    def named(self, values: Mapping[sa.Column[Any], Any]) -> dict[str, Any]:
        """Values of columns, by attribute name."""
        return {self._names[column]: value for column, value in values.items()}

    def row(self, values: Sequence[Any]) -> dict[str, Any]:
        """Values in the order of ``columns``, by attribute name."""
        return dict(zip(self.columns, values, strict=True))

    def from_log(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """The columns of an image of the change log, or of a key in it, that are exactly what a select gives.

        Those that are not (``Column.logged``), that this class does not have, or that have a value which it can't
        have (another version of the application has written it) are left out: they are to be read again.
        """
        found: dict[str, Any] = {}
        for name, value in image.items():
            values = self._values.get(name)
            if values is not None and values.logged:
                with contextlib.suppress(ValueError):
                    found[name] = values.from_log(value)
        return found

    def instance(self, row: Mapping[str, Any]) -> Any:
        """A detached instance of the mapped class with these loaded values.

        Made without a session: nothing that is done to it is ever written by itself, so no change can go past
        the change log.
        """
        manager = self.mapper.class_manager
        instance = manager.new_instance()
        instance.__dict__.update(row)
        make_transient_to_detached(instance)
        if manager.dispatch.load:  # a reconstructor, types that note their changes, listeners
            manager.dispatch.load(sa.inspect(instance), None)
        return instance

    def _check_plain(self, mapper: Mapper[Any]) -> None:
        if mapper.polymorphic_on is not None or mapper.inherits is not None or len(mapper.tables) != 1:
            raise WiringError(
                [f"{self.name} is mapped with inheritance or over several tables: map it to one plain table"]
            )
        if not isinstance(mapper.local_table, sa.Table):
            raise WiringError([f"{self.name} is mapped to a query: map it to a table"])


class EntityRegistry:
    """Finds the ``MappedEntity`` of a model, made at its first use."""

    def __init__(self) -> None:
        self._entities: dict[type, MappedEntity] = {}
        self._warned: set[Mapper[Any]] = set()
        self._database = ""

    def opened(self, database: str) -> None:
        """Has the entities judge values by what this database can hold."""
        self._database = database
        self._entities.clear()

    def of(self, model: type) -> MappedEntity:
        """Raises ``WiringError`` for what is not a mapped class."""
        entity = self._entities.get(model)
        if entity is None:
            mapper: object = sa.inspect(model, raiseerr=False)
            if not isinstance(mapper, Mapper):
                raise WiringError(
                    [f"{model!r} is not a mapped class: pass a class that derives from your Base"]
                )
            entity = self._entities[model] = MappedEntity(model, mapper, self._database)
            self._warn_of(mapper)
        return entity

    def warn_of_all(self, mappers: Iterable[Mapper[Any]]) -> None:
        """Tells the log, once of each, which writes are refused."""
        configure_mappers()
        for mapper in mappers:
            self._warn_of(mapper)

    def _warn_of(self, mapper: Mapper[Any]) -> None:
        if mapper not in self._warned:
            self._warned.add(mapper)
            warn_of_refusals(mapper)

    def by_table(self, name: str) -> MappedEntity | None:
        """The one of this table, among those used so far."""
        return next((entity for entity in self._entities.values() if entity.full_name == name), None)


def _target_of(key: sa.ForeignKey) -> str:
    return key.target_fullname.rpartition(".")[0]


def _refers_to(key: sa.ForeignKey, table: sa.Table) -> bool:
    return _target_of(key) == table.fullname


def _primary_key_of(mapper: Mapper[Any], table: sa.Table) -> Sequence[sa.Column[Any]]:
    """The table's, in its order, unless the mapping names another (``__mapper_args__ = {"primary_key": …}``)."""
    own = tuple(table.primary_key.columns)
    return own if set(own) == set(mapper.primary_key) else mapper.primary_key  # type: ignore[return-value]


def _unique_alone(table: sa.Table, columns: Mapping[str, sa.Column[Any]]) -> Iterable[str]:
    """Attributes whose column alone can't hold the same value twice; deferrable and partial ones don't count."""
    singles = {frozenset(table.primary_key.columns)}
    for constraint in table.constraints:
        if isinstance(constraint, sa.UniqueConstraint) and not constraint.deferrable:
            singles.add(frozenset(constraint.columns))
    for index in table.indexes:
        if index.unique and not any(index.dialect_kwargs.get(f"{d}_where") is not None for d in _DIALECTS):
            singles.add(frozenset(c for c in index.columns))
    return (name for name, column in columns.items() if frozenset([column]) in singles)


_DIALECTS = ("postgresql", "sqlite")


def _in_unique(table: sa.Table, names: Mapping[sa.Column[Any], str]) -> Iterable[str]:
    """Attributes that take part in any unique constraint or index: what other rows may not have too."""
    unique = [c for c in table.constraints if isinstance(c, sa.UniqueConstraint)]
    taken = {column for constraint in unique for column in constraint.columns}
    taken |= {column for index in table.indexes if index.unique for column in index.columns}
    return (names[column] for column in table.columns if column in taken and column in names)

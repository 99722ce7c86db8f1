"""Mapped classes, each read once: columns, conversion of values to their types, and rows made into instances."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import ColumnProperty, Mapper, make_transient_to_detached

from diptych.errors import Fault, InvalidValueError, UnknownColumnError, WiringError
from diptych.sql.columns import KEY_TYPES, ColumnValues, python_type_of, stored_texts
from diptych.sql.comparison import RealColumn, difference, in_code_points, real_columns, unique_sets
from diptych.sql.description import Column, Entity
from diptych.sql.mappings import resolve_mappings
from diptych.sql.refusals import is_fetched

LogImage: TypeAlias = Literal["all", "key"] | Collection[Any]
"""Content of the images of an entity's own changes in the log: every column, none, or these attributes."""


class MappedEntity:
    """A mapped class with its table, in a database of this name.

    ``identifying`` are the columns that identify a row: the primary key, and all that take part in anything unique.
    ``entry_columns`` are these and the foreign keys, which link the row to others: the columns that entries of the
    change log name. ``marker`` is the comment by which triggers know diptych's own statements on the table.
    ``image_columns`` are the columns in the image of its changes in the log; none if there is no image.
    As far as is known, a change of a row may change further rows, or the row again, if it ``has_effects``; it
    ``looks_late`` if it may notice other commands' changes that are later than its snapshot, whichever they are; and
    so may a deletion, or another value in a unique column, if there are tables ``referring`` to it by foreign keys.

    Raises ``WiringError`` for a mapping that the change log can't follow.
    """

    def __init__(
        self, model: type, mapper: Mapper[Any], database: str, token: str = "", image: LogImage = "all"
    ) -> None:
        self.model = model
        self.name = model.__name__
        resolve_mappings()  # instances can't be made before relationships are resolved
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
        self.marker = marker(token, self.full_name) if token else ""
        # In the table's order, in which rows are read and logged.
        self.columns = {names[column]: column for column in self.table.columns if column in names}
        self.primary_key = tuple(names[column] for column in _primary_key_of(mapper, self.table))
        self.unique = frozenset(_unique_sets(self.table, names))
        self.unique_columns = tuple(name for name in self.columns if frozenset({name}) in self.unique)
        self.identifying = tuple(dict.fromkeys((*self.primary_key, *_in_unique(self.table, names))))
        linking = (names[column] for column in self.table.columns if column.foreign_keys and column in names)
        self.entry_columns = tuple(dict.fromkeys((*self.identifying, *linking)))
        # Empty if the log can't have the primary key as text.
        has_text = all(_has_text(self.columns[name].type, database) for name in self.primary_key)
        self.row_id = self.primary_key if has_text else ()
        # A row that the statement returns lacks the effect of triggers after the statement: it is read again.
        self.is_finished_by_database = any(map(is_fetched, self.columns.values()))
        self.has_effects = self.looks_late = False
        self.referring: Set[str] = frozenset()
        self.image_columns = _image_columns(self.name, self.columns, image)
        self._described: dict[str, Entity] = {}
        self._real: Mapping[str, RealColumn] = {}
        self._really_unique: frozenset[frozenset[str]] | None = None
        self._names = names
        self._values = {name: ColumnValues(column, database) for name, column in self.columns.items()}

    async def look_at_table(self, connection: AsyncConnection) -> None:
        """Reads the table's real columns from the database, for ``describe`` and the order of lists."""
        self._real = await real_columns(connection, self.table)
        if self._real:
            attributes = {str(column.name): name for name, column in self.columns.items()}
            self._really_unique = await unique_sets(connection, self.table, attributes)
        self._described.clear()

    def in_code_points(
        self, name: str, dialect: sa.Dialect, aliased: sa.Column[Any] | None = None
    ) -> sa.ColumnElement[Any]:
        """Returns the column, or the same of an alias of the table, ordered as in Redis.

        An unchanged column keeps the use of its index.
        """
        column = self.columns[name] if aliased is None else aliased
        return in_code_points(column, dialect, self._real.get(column.name))

    @functools.cached_property
    def related_tables(self) -> frozenset[str]:
        """The tables that statements on this table may touch: the table, and all joined by foreign keys."""
        referring = {
            table.fullname
            for table in self.table.metadata.tables.values()
            if self.full_name in map(_target_of, table.foreign_keys)
        }
        return frozenset({self.full_name, *referring, *map(_target_of, self.table.foreign_keys)})

    def describe(self, dialect: sa.Dialect) -> Entity:
        """Returns the description of the class for the other rooms."""
        if dialect.name not in self._described:
            self._described[dialect.name] = Entity(
                model=self.model,
                name=self.name,
                table=self.full_name,
                primary_key=self.primary_key,
                columns={name: self._describe_column(name, dialect) for name in self.columns},
                identifying=self.identifying,
                in_entries=self.entry_columns,
                unique=self._unique_now,
            )
        return self._described[dialect.name]

    @property
    def _unique_now(self) -> frozenset[frozenset[str]]:
        """The sets of identifying columns that are unique by the catalogue, or by the mapping before that is known.

        Of others the log does not tell which value a change has freed.
        """
        unique = self.unique if self._really_unique is None else self._really_unique
        return frozenset(names for names in unique if names <= set(self.identifying))

    def _describe_column(self, name: str, dialect: sa.Dialect) -> Column:
        column = self.columns[name]
        there = column.type.dialect_impl(dialect)
        real = self._real.get(column.name)
        compared = difference(column, dialect, real)
        return Column(
            name=name,
            type=python_type_of(there),
            nullable=bool(column.nullable),
            unique=frozenset({name}) in self._unique_now,
            in_table=str(column.name),
            bytewise=not compared,
            compared=compared,
            misordered=difference(column, dialect, real, in_order=True),
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
        """Returns the values in their columns' types.

        With ``complete`` a value that a new row needs must not be missing. Raises ``UnknownColumnError``, and an
        ``InvalidValueError`` that names every misfit.
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
        """Returns values to look for, in their columns' types; None if no row can hold all these values.

        Raises ``InvalidValueError`` for a value of a wrong type, ``UnknownColumnError``.
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
        """Returns whether the column can hold this value; if not, a look-up would fail on PostgreSQL."""
        return self._values[name].holds(value)

    def named(self, values: Mapping[sa.Column[Any], Any]) -> dict[str, Any]:
        """Returns values of columns by attribute name."""
        return {self._names[column]: value for column, value in values.items()}

    def row(self, values: Sequence[Any]) -> dict[str, Any]:
        """Returns values, given in the order of ``columns``, by attribute name."""
        return dict(zip(self.columns, values, strict=True))

    def from_log(self, image: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values, in an image or key of the change log, known to equal the values of a select.

        Left out, and to be read again, are columns not exact in JSON (``Column.logged``), columns unknown to this
        class, and values impossible for it (written by a different version of the application).
        """
        found: dict[str, Any] = {}
        for name, value in image.items():
            values = self._values.get(name)
            if values is not None and values.logged:
                with contextlib.suppress(ValueError):
                    found[name] = values.from_log(value)
        return found

    def instance(self, row: Mapping[str, Any]) -> Any:
        """Returns a detached instance of the mapped class with these loaded values.

        There is no session: a change of the instance is never written by itself, past the change log.
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
            raise WiringError([f"{self.name} is mapped {_several(mapper)}"])
        if not isinstance(mapper.local_table, sa.Table):
            raise WiringError([f"{self.name} is mapped to a query: map it to a table"])


def _several(mapper: Mapper[Any]) -> str:
    """Returns how a class is mapped to more than one plain table, and the class to be declared beside it."""
    table, name = mapper.local_table, mapper.class_.__name__
    if (mapper.polymorphic_on is None and mapper.inherits is None) or not isinstance(table, sa.Table):
        return "over several tables: map it to one plain table"
    return (
        f"with inheritance: declare a class of the table {table.name} alone beside it, such as "
        f"`class {name}Row(Base): __table__ = {name}.__table__`, for the read model and its relationships; "
        "commands write the inherited classes by `ORMService.session`"
    )


def _has_text(column_type: sa.types.TypeEngine[Any], database: str) -> bool:
    """Returns whether values of this type have the same text in the log from every writer."""
    has_digits_alone = isinstance(column_type, sa.Uuid) and not column_type.native_uuid
    return python_type_of(column_type) in KEY_TYPES and not (database == "postgresql" and has_digits_alone)


def _target_of(key: sa.ForeignKey) -> str:
    return key.target_fullname.rpartition(".")[0]


_DIALECTS = ("postgresql", "sqlite")


def _primary_key_of(mapper: Mapper[Any], table: sa.Table) -> Sequence[sa.Column[Any]]:
    """Returns the primary key of the mapping.

    That is the table's, in its order, unless the mapping names a different key: ``__mapper_args__ = {"primary_key":
    …}``.
    """
    own = tuple(table.primary_key.columns)
    return own if set(own) == set(mapper.primary_key) else mapper.primary_key  # type: ignore[return-value]


def _unique_sets(table: sa.Table, names: Mapping[sa.Column[Any], str]) -> Iterable[frozenset[str]]:
    """Yields the sets of attributes with different values in any two rows, null aside.

    Deferrable constraints and partial indexes don't count.
    """
    unique: list[Iterable[sa.Column[Any]]] = [
        constraint.columns
        for constraint in table.constraints
        if isinstance(constraint, sa.UniqueConstraint | sa.PrimaryKeyConstraint) and not constraint.deferrable
    ]
    for index in table.indexes:
        if index.unique and not any(index.dialect_kwargs.get(f"{d}_where") is not None for d in _DIALECTS):
            unique.append(index.columns)
    for columns in map(list, unique):
        if columns and all(column in names for column in columns):
            yield frozenset(names[column] for column in columns)


def _in_unique(table: sa.Table, names: Mapping[sa.Column[Any], str]) -> Iterable[str]:
    """Yields attributes whose column takes part in any unique constraint or index."""
    unique = [c for c in table.constraints if isinstance(c, sa.UniqueConstraint)]
    taken = {column for constraint in unique for column in constraint.columns}
    taken |= {column for index in table.indexes if index.unique for column in index.columns}
    return (names[column] for column in table.columns if column in taken and column in names)


MARKER = "diptych_marker"
"""Name of the execution option with the marker of a statement."""


def marker(token: str, table: str) -> str:
    """Returns the comment at the beginning of diptych's own statements on a table.

    ``token`` is random, and of the database: nobody else writes the comment without meaning to.
    """
    # A comment may hold no beginning and no end of another one, at its own end neither.
    return f"/*diptych {token} {table.replace('*', '%2A').replace('/', '%2F')}*/"


def _image_columns(name: str, columns: Collection[str], image: LogImage) -> tuple[str, ...]:
    """Returns the attributes in the images of changes, in the table's order. Raises ``WiringError``."""
    if image == "all":
        return tuple(columns)
    if image == "key":
        return ()
    if isinstance(image, str) or not isinstance(image, Collection):
        example = f"[{name}.{next(iter(columns))}]"
        raise WiringError(
            [f'log_images: {name} must have "all", "key" or a list of columns, such as {example}']
        )
    wanted = {str(getattr(column, "key", column)) for column in image}
    if unknown := sorted(wanted - set(columns)):
        raise WiringError(
            [f"log_images: {name} has no column {', '.join(unknown)}; its columns are {', '.join(columns)}"]
        )
    return tuple(column for column in columns if column in wanted)

"""Statements executed again and again, each prepared once for the shortest way to the database.

An engine makes a context, a cursor and a result for each execution, in several times the time of SQLite itself, and
in more time than PostgreSQL's driver takes. Where the driver has all values of a type itself, an engine has nothing
to add.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import StatementError
from sqlalchemy.sql.visitors import iterate


class CompiledStatement:
    """The text of a statement, with the processors of its parameters and columns.

    ``types`` are those of the columns in its rows; ``names`` the columns of an insert without values.
    """

    def __init__(
        self,
        statement: sa.Select[Any] | sa.Insert | sa.Update,
        dialect: sa.Dialect,
        types: Iterable[sa.types.TypeEngine[Any]],
        names: Sequence[str] | None = None,
    ) -> None:
        compiled: Any = statement.compile(dialect=dialect, column_keys=names)
        binds = [(name, compiled.binds[name]) for name in compiled.positiontup]
        self.text = str(compiled)
        self._stores = [
            (name, bind.effective_value, bind.type.dialect_impl(dialect).bind_processor(dialect))
            for name, bind in binds
        ]
        loads = [kind.dialect_impl(dialect).result_processor(dialect, None) for kind in types]
        self._loads = [(i, load) for i, load in enumerate(loads) if load is not None]

    def parameters(self, values: Mapping[str, Any]) -> list[Any]:
        """Returns these values and the statement's constants in the order of the text, as SQLite stores them.

        Raises ``StatementError``, as an engine does, if a column's type refuses a value.
        """
        found = ((values.get(name, own), store) for name, own, store in self._stores)
        try:
            return [value if store is None else store(value) for value, store in found]
        except Exception as error:
            raise StatementError(str(error), self.text, None, error) from error

    def loaded(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Returns rows of the driver with an engine's values for their types."""
        if not self._loads:
            return rows
        loaded = []
        for row in rows:
            values = list(row)
            for i, load in self._loads:
                values[i] = load(values[i])
            loaded.append(values)
        return loaded


_DIALECT = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]

_Process = Callable[[Any], Any]


class RawStatement:
    """A statement that is sent past the engine, for PostgreSQL's driver. All its types are direct: see ``is_direct``.

    ``names`` are the columns of an insert without values, ``marker`` is a comment before the text.
    """

    def __init__(self, statement: Any, names: Sequence[str] | None = None, *, marker: str = "") -> None:
        self._statement = statement
        self._names = names
        self._marker = marker

    @functools.cached_property
    def compiled(self) -> CompiledRaw:
        """The statement as it is sent."""
        compiled = self._statement.compile(dialect=_DIALECT, column_keys=self._names)
        names = compiled.positiontup or ()
        stores = {name: _store_of(compiled.binds[name].type) for name in names}
        loads = [(n, _load_of(column.type)) for n, column in enumerate(self._statement.exported_columns)]
        return CompiledRaw(
            self._marker + str(compiled),
            names,
            compiled.params,
            [(n, store) for n, name in enumerate(names) if (store := stores[name]) is not None],
            [(n, load) for n, load in loads if load is not None],
        )


class CompiledRaw(NamedTuple):
    """A statement's text for the driver, the names of its parameters in their order, and its constants.

    ``stores`` and ``loads`` are SQLAlchemy's processors of parameters and columns, by their numbers.
    """

    text: str
    names: Sequence[str]
    constants: Mapping[str, Any]
    stores: Sequence[tuple[int, _Process]]
    loads: Sequence[tuple[int, _Process]]

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Returns the parameters in the driver's types. Raises ``StatementError``, as an engine does."""
        constants = self.constants
        arguments = [values[name] if name in values else constants[name] for name in self.names]
        try:
            for n, store in self.stores:
                arguments[n] = store(arguments[n])
        except Exception as error:
            raise StatementError(str(error), self.text, None, error) from error
        return arguments

    def loaded(self, rows: Sequence[Sequence[Any]]) -> Sequence[Sequence[Any]]:
        """Returns rows of the driver in an engine's types. Raises the errors of the columns' types."""
        if not self.loads:
            return rows
        found = []
        for row in rows:
            values = list(row)
            for n, load in self.loads:
                values[n] = load(values[n])
            found.append(values)
        return found


_NUMERIC, _FLOAT8 = 1700, 701
"""Numbers of PostgreSQL's types, by which SQLAlchemy chooses how numbers are loaded."""

_DIRECT = (
    *(sa.Integer, sa.String, sa.Boolean, sa.Date, sa.DateTime, sa.Time, sa.Numeric, sa.Uuid),
    *(sa.Float, sa.JSON, sa.ARRAY, sa.LargeBinary, postgresql.INTERVAL),
)
_DIRECT_ITEMS = (sa.Integer, sa.String, sa.Boolean, sa.Uuid)


def postgres_type(column_type: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """Returns the type that stands for this one on PostgreSQL: its variant, or the dialect's own."""
    return column_type.dialect_impl(_DIALECT)


def is_direct(column_type: sa.types.TypeEngine[Any]) -> bool:
    """Returns whether the driver has values of this type as an engine does, but for SQLAlchemy's own processors.

    Not so for types of an application, which may do anything, and may look at the connection.
    """
    there = postgres_type(column_type)
    if not (type(there).__module__.startswith("sqlalchemy.") and isinstance(there, _DIRECT)):
        return False
    if isinstance(there, sa.ARRAY):
        item = postgres_type(there.item_type)
        return is_direct(item) and isinstance(item, _DIRECT_ITEMS) and not isinstance(item, sa.Enum)
    if isinstance(there, sa.Time) and there.timezone:
        return False
    if isinstance(there, sa.Numeric) and not isinstance(there, sa.Float):
        return there.asdecimal
    return not (isinstance(there, sa.Float) and there.asdecimal)


def _store_of(column_type: sa.types.TypeEngine[Any]) -> _Process | None:
    process: _Process | None = postgres_type(column_type).bind_processor(_DIALECT)
    return process


def _load_of(column_type: sa.types.TypeEngine[Any]) -> _Process | None:
    there = postgres_type(column_type)
    number = _FLOAT8 if isinstance(there, sa.Float) else _NUMERIC if isinstance(there, sa.Numeric) else None
    process: _Process | None = there.result_processor(_DIALECT, number)
    return process


def text_of(statement: Any) -> str:
    """Returns the text, as sent to the server, of a statement without parameters."""
    return str(statement.compile(dialect=_DIALECT))


_FIRST_PAUSE_S = 0.1
"""First pause of a slow select outside of the event loop, in seconds; each further pause is twice as long."""

_LONGEST_PAUSE_S = 10.0

_FORGIVING = 100
"""Number of fast executions that make up for a slow execution."""


class PreparedSelect:
    """A select expected to be short: few rows, found by an index. Compiled at its first use.

    A select that turns out to be slow again and again is kept out of the event loop, each time for twice as long: a
    missing index must not hold up the loop with every query. A slow execution among a hundred fast ones is forgiven.
    """

    def __init__(self, select: sa.Select[Any]) -> None:
        self.select = select
        self.names = [column["name"] for column in select.column_descriptions]
        self._compiled: CompiledStatement | None = None
        self._fast_runs = 0
        self._pause_s = 0.0
        self._resumes = 0.0

    def may_run(self) -> bool:
        """Returns whether the select may run in the event loop now."""
        return time.perf_counter() >= self._resumes

    def mark_fast(self) -> None:
        """Notes an execution in the event loop ended within its budget."""
        self._fast_runs += 1

    def mark_slow(self) -> None:
        """Notes an execution in the event loop interrupted because of its length."""
        if self._fast_runs >= _FORGIVING:
            self._pause_s = 0.0
        self._fast_runs = 0
        self._resumes = time.perf_counter() + self._pause_s
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)

    def compiled(self, dialect: sa.Dialect) -> CompiledStatement:
        """Returns the statement for SQLite's driver. The dialect has to be the same at each call."""
        if self._compiled is None:
            types = [column["type"] for column in self.select.column_descriptions]
            self._compiled = CompiledStatement(self.select, dialect, types)
        return self._compiled

    @functools.cached_property
    def raw(self) -> RawStatement:
        """The statement for PostgreSQL's driver."""
        return RawStatement(self.select)

    @functools.cached_property
    def is_direct(self) -> bool:
        """True if PostgreSQL's driver itself has the types of all parameters and columns."""
        types = [column["type"] for column in self.select.column_descriptions]
        types += [part.type for part in iterate(self.select) if isinstance(part, sa.BindParameter)]
        return all(map(is_direct, types))


class FewValues:
    """Selects by a few values, each prepared once for a number of them."""

    _SIZES = (1, 4, 16, 64)

    def __init__(self) -> None:
        self._prepared: dict[Hashable, PreparedSelect] = {}

    def get(
        self,
        key: Hashable,
        values: Sequence[Any],
        column_type: sa.types.TypeEngine[Any],
        make: Callable[[Sequence[Any]], sa.Select[Any]],
    ) -> tuple[PreparedSelect, Mapping[str, Any]] | None:
        """Returns a select and its parameters; None if there are too many values, or none.

        ``make`` returns the select by parameters of this type in the place of the values. It is called once for
        each ``key`` and number of parameters, of which the last stand for the same value if there are fewer values.
        """
        size = next((size for size in self._SIZES if size >= len(values)), 0)
        if not (size and values):
            return None
        names = [f"p_value_{number}" for number in range(size)]
        if (key, size) not in self._prepared:
            self._prepared[key, size] = PreparedSelect(
                make([sa.bindparam(n, type_=column_type) for n in names])
            )
        padded = [*values, *[values[-1]] * (size - len(values))]
        return self._prepared[key, size], dict(zip(names, padded, strict=True))


class PreparedWrite:
    """A statement that adds or changes a single row, returning columns.

    ``names`` are the columns that get values, where the statement itself gives them none. ``inline`` lets SQLite's
    driver execute the statement in the event loop, ``raw`` PostgreSQL's: allowed where an engine has nothing to add,
    such as a default made by a function.
    """

    def __init__(
        self, statement: Any, names: Sequence[str] | None = None, *, inline: bool = False, raw: bool = False
    ) -> None:
        self.statement = statement
        self.table: str = statement.table.name
        self.inline = inline
        self.raw = RawStatement(statement, names) if raw else None
        self._names = names
        self._compiled: CompiledStatement | None = None

    def compiled(self, dialect: sa.Dialect) -> CompiledStatement:
        """Returns the statement for SQLite's driver. The dialect has to be the same at each call."""
        if self._compiled is None:
            types = [column.type for column in self.statement.exported_columns]
            self._compiled = CompiledStatement(self.statement, dialect, types, self._names)
        return self._compiled

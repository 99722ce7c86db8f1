"""The tree of all errors raised by diptych on purpose. Errors know nothing of HTTP.

DiptychError
├── ConfigurationError            a setting is missing, malformed or contradicts another
│   └── MissingExtraError         a package of an extra is not installed
├── WiringError                   the application does not fit together; found at start
├── NotStartedError               used before ``start()`` or after ``stop()``
│   └── DifferentLoopError        … or in another event loop than that of ``start()``
├── SchemaVersionError            the framework's tables were written by a newer diptych
├── SchemaError                   a table, a column, a right or a trigger is missing, and can't be made
├── InvalidMessage                a command or query with one or more faulty fields
├── UnknownColumnError            a name that is not a mapped column of the model
├── InvalidValueError             values that do not fit their columns
├── AmbiguousLookupError          a look-up that was to find one row found several
├── ConstraintError               the state of the data is against a change
│   ├── DuplicateError            … because a unique value is taken
│   └── StaleVersionError         … because the row was changed since the caller read it
├── UnitOfWorkError               a unit of work was used after its end, or after it failed
├── UnreadableRowError            a row does not fit its document, or can't be loaded
├── RebuildFailedError            a read model could not be rebuilt
└── UnavailableError              try again later; carries ``retry_after_s``
    ├── DatabaseUnavailableError  SQL cannot be reached
    │   └── DatabaseBusyError     SQL is there, but was held for too long
    ├── ConflictError             concurrent commands kept changing the same rows
    └── RedisUnavailableError     Redis cannot be reached (only where it is critical)
        └── RedisRefusedError     Redis is there, but cannot be used as it is set up
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class DiptychError(Exception):
    """The base of all errors raised by diptych on purpose."""


class ConfigurationError(DiptychError):
    """A setting is missing, malformed or at odds with the others. ``key`` is its name."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class MissingExtraError(ConfigurationError):
    """A feature was asked for whose packages are not installed; ``extra`` names the extra to install."""

    def __init__(self, key: str, extra: str, missing: str) -> None:
        super().__init__(
            key,
            f'needs the package "{missing}", which is not installed: install diptych with the extra "{extra}"',
        )
        self.extra = extra


class WiringError(DiptychError):
    """The application does not fit together. ``problems`` lists every fault found, each with its remedy."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the application is not wired correctly:" + "".join(f"\n  - {p}" for p in problems))
        self.problems = tuple(problems)


class NotStartedError(DiptychError):
    """Something was used before ``start()`` or after ``stop()``."""


class DifferentLoopError(NotStartedError):
    """Something was used outside the event loop of its start; nothing was done.

    ``is_closed`` tells whether the loop of the start is closed by now.
    """

    def __init__(self, what: str, *, is_closed: bool) -> None:
        remedy = (
            "that one is closed: start, use and stop it within one loop, such as that of one asyncio.run"
            if is_closed
            else "use it there, from another thread by asyncio.run_coroutine_threadsafe, or start another one here"
        )
        super().__init__(f"{what} was started in another event loop, and works in no other; {remedy}")
        self.is_closed = is_closed


class SchemaVersionError(DiptychError):
    """The framework's tables were upgraded by a newer diptych. ``found`` is their version."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the diptych tables of this database have version {found}, which this diptych does not know: "
            "install the newer diptych that upgraded them; nothing was changed"
        )
        self.found = found


class SchemaError(DiptychError):
    """A table, a column, a trigger or a right that diptych needs is missing, and diptych can't make it.

    ``problems`` lists everything that is missing, each with the table, the role, and what to do.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the database is not as it is needed:" + "".join(f"\n  - {p}" for p in problems))
        self.problems = tuple(problems)


class Fault(NamedTuple):
    """A faulty field: its name (a dotted path inside nested structs) and the fault in words.

    >>> from diptych import Fault
    >>> Fault("changes.title", "is missing").field
    'changes.title'
    """

    field: str
    detail: str


class PlacedFault(Fault):
    """A fault that knows the steps of its path: names from outside may have dots, or be empty."""

    steps: tuple[str, ...]

    def __new__(cls, steps: Iterable[str], detail: str) -> PlacedFault:
        """Returns the fault of what these steps lead to."""
        steps = tuple(steps)
        fault = super().__new__(cls, ".".join(steps), detail)
        fault.steps = steps
        return fault

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return self.steps, self.detail


def steps_of(fault: Fault) -> tuple[str, ...]:
    """Returns the steps of a fault's path; none if the whole is faulty."""
    if isinstance(fault, PlacedFault):
        return fault.steps
    return tuple(fault.field.split(".")) if fault.field else ()


class InvalidMessage(DiptychError, ValueError):
    """A command or query has faulty fields. ``faults`` holds every fault, not only the first."""

    def __init__(self, message: str, faults: Iterable[Fault]) -> None:
        self.message = message
        self.faults = tuple(faults)
        super().__init__(f"{message}: " + "; ".join(f"{f.field} {f.detail}" for f in self.faults))


class UnsupportedFilterError(InvalidMessage):
    """A list can't serve the filter of a page. ``lists`` are the names of the read model's lists that can."""

    def __init__(
        self,
        name: str,
        columns: Sequence[str],
        able: Sequence[str],
        known: Sequence[str],
        needs: Sequence[str] = (),
    ) -> None:
        asked = ", ".join(map(str, columns)) or "nothing"
        needed = f" (it needs one value of {' and one of '.join(needs)}, no range)" if needs else ""
        mend = (
            f"these lists can: {', '.join(able)}"
            if able
            else "values are for the leading columns of a list, and a range for the next one. The lists are: "
            + "; ".join(known)
        )
        super().__init__(
            "page", [Fault("where", f"selects by {asked}, which the list {name} can't serve{needed}; {mend}")]
        )
        self.lists = tuple(able)


class UnknownColumnError(DiptychError, ValueError):
    """``names`` are not mapped columns of ``model``; ``columns`` lists its mapped columns."""

    def __init__(self, model: str, names: Sequence[str], columns: Sequence[str]) -> None:
        shown = ", ".join(repr(n) for n in names)
        super().__init__(f"{model} has no mapped column {shown}; its columns are: {', '.join(columns)}")
        self.model = model
        self.names = tuple(names)
        self.columns = tuple(columns)


class InvalidValueError(DiptychError, ValueError):
    """Values do not fit their columns. ``faults`` names every such column."""

    def __init__(self, model: str, faults: Iterable[Fault]) -> None:
        self.model = model
        self.faults = tuple(faults)
        super().__init__(f"{model}: " + "; ".join(f"{f.field} {f.detail}" for f in self.faults))


class AmbiguousLookupError(DiptychError):
    """Several rows of ``model`` match where a single row was meant; nothing was changed."""

    def __init__(self, model: str, column: str) -> None:
        super().__init__(
            f"several rows of {model} have this {column}: look up by the primary key or a unique column; "
            "nothing was changed"
        )
        self.model = model
        self.column = column


class ConstraintError(DiptychError):
    """The database refused a change of ``model``; ``columns`` are the constraint's, if known."""

    def __init__(self, model: str, columns: Sequence[str], problem: str) -> None:
        super().__init__(f"{model}: {problem}")
        self.model = model
        self.columns = tuple(columns)


class DuplicateError(ConstraintError):
    """The value in the unique ``columns`` is taken by a different row of ``model``."""

    def __init__(self, model: str, columns: Sequence[str]) -> None:
        names = ", ".join(columns) or "a unique column"
        super().__init__(model, columns, f"another row already has this {names}")


class StaleVersionError(ConstraintError):
    """A row of ``model`` was changed since the caller read its version; nothing was changed.

    ``read`` is the version given by the caller, ``found`` the row's.
    """

    def __init__(self, model: str, column: str, read: object, found: object) -> None:
        super().__init__(
            model,
            (column,),
            f"the row was changed since it was read: {column} was {read!r}, and is {found!r}; nothing was changed: "
            "read it again",
        )
        self.read = read
        self.found = found


class UnitOfWorkError(DiptychError):
    """A unit of work was used after its end, or after the failure of a statement in it."""


class UnreadableRowError(DiptychError):
    """A row is there, but can't be shown: its ``field`` ("" for all together) does not fit; ``reason`` says how.

    ``key`` is the key that was asked for. The error ends by itself with the row's next change, or its deletion.
    """

    def __init__(self, table: str, key: object, field: str, reason: str) -> None:
        super().__init__(
            f"the row of {table} with the key {key!r} can't be shown: {field or 'its document'} {reason}; "
            "change the row, or what it is read into"
        )
        self.table = table
        self.key = key
        self.field = field
        self.reason = reason


class UnavailableError(DiptychError):
    """A request cannot be served now; ``retry_after_s`` says in how many seconds to try again."""

    def __init__(self, problem: str, retry_after_s: int = 1) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class DatabaseUnavailableError(UnavailableError):
    """The SQL database cannot be reached, or broke the connection.

    ``may_be_done`` says that this happened at the commit: the change may be there or not.
    """

    def __init__(self, problem: str, retry_after_s: int = 1, *, may_be_done: bool = False) -> None:
        super().__init__(problem, retry_after_s)
        self.may_be_done = may_be_done


class DatabaseBusyError(DatabaseUnavailableError):
    """SQL is there, but was held for longer than ``DATABASE_TIMEOUT_MS``, or than PostgreSQL's own time-outs allow.

    Nothing was changed.
    """


class ConflictError(UnavailableError):
    """Concurrent commands kept changing the same rows, on every attempt; nothing was changed."""


class RedisUnavailableError(UnavailableError):
    """Redis cannot be reached and ``REDIS_CRITICAL`` is set."""


class RedisRefusedError(RedisUnavailableError):
    """Redis answers, but its set-up forbids its use: too old, a replica, or an evicting policy."""


class RebuildFailedError(DiptychError):
    """A read model could not be rebuilt; its present documents go on serving."""

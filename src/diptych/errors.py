"""Every error that diptych raises on purpose, as one tree. It knows nothing of HTTP.

DiptychError
├── ConfigurationError            a setting is missing, malformed or contradicts another
│   └── MissingExtraError         a package of an extra is not installed
├── WiringError                   the application does not fit together; found at start
├── NotStartedError               used before ``start()`` or after ``stop()``
│   └── DifferentLoopError        … or in another event loop than that of ``start()``
├── SchemaVersionError            the framework's tables were written by a newer diptych
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
    │   └── DatabaseBusyError     SQL is there, but other writers held it for too long
    ├── ConflictError             concurrent commands kept changing the same rows
    └── RedisUnavailableError     Redis cannot be reached (only where it is critical)
        └── RedisRefusedError     Redis is there, but cannot be used as it is set up
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class DiptychError(Exception):
    """The base of all errors that diptych raises on purpose."""


class ConfigurationError(DiptychError):
    """A setting is missing, malformed or contradicts another. ``key`` names it."""

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(f"{key}: {problem}")
        self.key = key
        self.problem = problem


class MissingExtraError(ConfigurationError):
    """A feature was asked for whose packages are not installed; ``extra`` is what to install."""

    def __init__(self, key: str, extra: str, missing: str) -> None:
        super().__init__(
            key, f'needs the package "{missing}", which is not installed: pip install "diptych[{extra}]"'
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
    """Something was used in another event loop than the one it was started in; nothing was done.

    ``is_closed`` tells whether that one is closed by now.
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
    """The framework's tables were upgraded by a newer diptych than this one. ``found`` is their version."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"the diptych tables of this database have version {found}, which this diptych does not know: "
            "install the newer diptych that upgraded them; nothing was changed"
        )
        self.found = found


class Fault(NamedTuple):
    """One faulty field: its name (a dotted path inside nested structs) and what is wrong with it."""

    field: str
    detail: str


class InvalidMessage(DiptychError, ValueError):
    """A command or query has faulty fields. ``faults`` holds every one of them, not only the first."""

    def __init__(self, message: str, faults: Iterable[Fault]) -> None:
        self.message = message
        self.faults = tuple(faults)
        super().__init__(f"{message}: " + "; ".join(f"{f.field} {f.detail}" for f in self.faults))


class UnknownColumnError(DiptychError, ValueError):
    """``names`` are not mapped columns of ``model``; ``columns`` lists those that are."""

    def __init__(self, model: str, names: Sequence[str], columns: Sequence[str]) -> None:
        shown = ", ".join(repr(n) for n in names)
        super().__init__(f"{model} has no mapped column {shown}; its columns are: {', '.join(columns)}")
        self.model = model
        self.names = tuple(names)
        self.columns = tuple(columns)


class InvalidValueError(DiptychError, ValueError):
    """Values do not fit the columns they are meant for. ``faults`` names every such column."""

    def __init__(self, model: str, faults: Iterable[Fault]) -> None:
        self.model = model
        self.faults = tuple(faults)
        super().__init__(f"{model}: " + "; ".join(f"{f.field} {f.detail}" for f in self.faults))


class AmbiguousLookupError(DiptychError):
    """Several rows of ``model`` match where one was meant; nothing was changed."""

    def __init__(self, model: str, column: str) -> None:
        super().__init__(
            f"several rows of {model} have this {column}: look up by the primary key or a unique column; "
            "nothing was changed"
        )
        self.model = model
        self.column = column


class ConstraintError(DiptychError):
    """The database refused a change of ``model``; ``columns`` are those of the constraint, if it told."""

    def __init__(self, model: str, columns: Sequence[str], problem: str) -> None:
        super().__init__(f"{model}: {problem}")
        self.model = model
        self.columns = tuple(columns)


class DuplicateError(ConstraintError):
    """Another row of ``model`` already has this value in the unique ``columns``."""

    def __init__(self, model: str, columns: Sequence[str]) -> None:
        names = ", ".join(columns) or "a unique column"
        super().__init__(model, columns, f"another row already has this {names}")


class StaleVersionError(ConstraintError):
    """A row of ``model`` has another version than the caller has read; nothing was changed.

    ``read`` is the version that he gave, ``found`` the row's.
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
    """A unit of work was used after its end, or after one of its statements had failed."""


class UnreadableRowError(DiptychError):
    """A row is there, but can't be shown: its ``field`` ("" for all together) does not fit; ``reason`` says how.

    ``key`` is the one that was asked for. The row's next change, or its deletion, ends it by itself.
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
    """What was asked cannot be done now; ``retry_after_s`` says in how many seconds to try again."""

    def __init__(self, problem: str, retry_after_s: int = 1) -> None:
        super().__init__(problem)
        self.retry_after_s = retry_after_s


class DatabaseUnavailableError(UnavailableError):
    """The SQL database cannot be reached, or broke the connection."""


class DatabaseBusyError(DatabaseUnavailableError):
    """Other writers held the SQL database for longer than ``DATABASE_TIMEOUT_MS``."""


class ConflictError(UnavailableError):
    """Concurrent commands kept changing the same rows, on every attempt; nothing was changed."""


class RedisUnavailableError(UnavailableError):
    """Redis cannot be reached and ``REDIS_CRITICAL`` is set."""


class RedisRefusedError(RedisUnavailableError):
    """Redis answers but must not be used as it is set up: too old, a replica, or an evicting policy."""


class RebuildFailedError(DiptychError):
    """A read model could not be rebuilt; the one there is goes on serving."""

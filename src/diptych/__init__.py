"""Commands change rows in SQL; queries are answered from Redis, and from SQL while Redis can't be proved fresh."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diptych.app import Diptych
from diptych.config.logs import configure_logging
from diptych.config.service import ConfigService
from diptych.errors import (
    AmbiguousLookupError,
    ConfigurationError,
    ConflictError,
    ConstraintError,
    DatabaseBusyError,
    DatabaseUnavailableError,
    DifferentLoopError,
    DiptychError,
    DuplicateError,
    Fault,
    InvalidMessage,
    InvalidValueError,
    MissingExtraError,
    NotStartedError,
    RebuildFailedError,
    RedisRefusedError,
    RedisUnavailableError,
    SchemaError,
    SchemaVersionError,
    StaleVersionError,
    UnavailableError,
    UnitOfWorkError,
    UnknownColumnError,
    UnreadableRowError,
    UnsupportedFilterError,
    WiringError,
)
from diptych.health import Health
from diptych.messages.message import Command, Event, Message, Query, build
from diptych.messages.mixins import CommandOf, QueryOf
from diptych.messages.plans import Rule
from diptych.read.answers import Document, Page, PageOf, Served
from diptych.read.declaration import by, each, field, join
from diptych.read.declaration.nested import average, computed, count, many, maximum, minimum, one, total
from diptych.read.lists.filters import between, starts_with
from diptych.read.model import ReadModel
from diptych.sql.comparison import code_point_text
from diptych.statistics import Statistics
from diptych.write.orm import ORMService

if TYPE_CHECKING:
    from diptych.hinge.side import RedisService

__all__ = [
    "AmbiguousLookupError",
    "Command",
    "CommandOf",
    "ConfigService",
    "ConfigurationError",
    "ConflictError",
    "ConstraintError",
    "DatabaseBusyError",
    "DatabaseUnavailableError",
    "DifferentLoopError",
    "Diptych",
    "DiptychError",
    "Document",
    "DuplicateError",
    "Event",
    "Fault",
    "Health",
    "InvalidMessage",
    "InvalidValueError",
    "Message",
    "MissingExtraError",
    "NotStartedError",
    "ORMService",
    "Page",
    "PageOf",
    "Query",
    "QueryOf",
    "ReadModel",
    "RebuildFailedError",
    "RedisRefusedError",
    "RedisService",
    "RedisUnavailableError",
    "Rule",
    "SchemaError",
    "SchemaVersionError",
    "Served",
    "StaleVersionError",
    "Statistics",
    "UnavailableError",
    "UnitOfWorkError",
    "UnknownColumnError",
    "UnreadableRowError",
    "UnsupportedFilterError",
    "WiringError",
    "average",
    "between",
    "build",
    "by",
    "code_point_text",
    "computed",
    "configure_logging",
    "count",
    "each",
    "field",
    "join",
    "many",
    "maximum",
    "minimum",
    "one",
    "starts_with",
    "total",
]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    # Redis is an extra: every other name must be there without the package.
    if name == "RedisService":
        from diptych.hinge.side import RedisService

        return RedisService
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

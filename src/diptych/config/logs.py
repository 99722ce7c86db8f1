"""Log lines of one form, for people or as JSON: diptych's own, the server's, the framework's, Alembic's.

A line names the worker and the process that wrote it. Nothing that somebody sent can look like a line of its own:
control characters are escaped, and what follows a line break is indented.
"""

from __future__ import annotations

import json
import logging
import logging.config
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

from diptych.config.access import AccessFields
from diptych.config.service import ConfigService
from diptych.config.settings import LOG_FORMATS, LOG_LEVELS, Settings
from diptych.context import correlation_id, request_scope
from diptych.errors import ConfigurationError

_QUIET = (
    *("_granian", "aiosqlite", "alembic.runtime.plugins", "asyncio", "httpcore", "httpx"),
    *("sqlalchemy", "watchfiles"),
)
"""Loggers whose lines below WARNING say what a library does, some of them with the values of statements."""

_SERVERS = ("uvicorn", "uvicorn.error")
_ACCESS = ("granian.access", "uvicorn.access")

_OWN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName", "color_message"}
"""Attributes of a record that are no fields of its event."""

_worker: int | None = None


def name_worker(number: int) -> None:
    """Notes that this process is the worker with this number, from 1."""
    global _worker
    _worker = number


def configure_logging(level: str | None = None, format: str | None = None) -> None:
    """Writes all log lines of this process to standard error in one form; those of requests to standard output.

    `level` is "debug", "info", "warning", "error" or "critical", `format` is "text" or "json"; without them the
    settings `LOG_LEVEL` and `LOG_FORMAT` count. For programs, and for servers other than `diptych run`: call it where
    the application is made. Handlers that root, uvicorn and Granian had before are removed. Raises
    `ConfigurationError`.

    >>> import logging
    >>> from diptych import configure_logging
    >>> configure_logging("info", "json")
    >>> logging.getLogger("diptych.shop").info("open")  # to standard error
    >>> logging.getLogger().handlers.clear()
    """
    settings = ConfigService().settings if level is None or format is None else None
    chosen_level = _one_of(LOG_LEVELS, "level", level) if level is not None else ""
    chosen_format = _one_of(LOG_FORMATS, "format", format) if format is not None else ""
    if settings is not None:
        chosen_level = chosen_level or settings.log_level
        chosen_format = chosen_format or settings.log_format
    logging.config.dictConfig(logging_config(chosen_level, chosen_format))
    log_what_python_writes()


def _one_of(words: tuple[str, ...], name: str, given: str) -> str:
    if given.upper() not in words:
        raise ConfigurationError(name, f"must be one of {', '.join(words).lower()}")
    return given.upper()


def logging_config(level: str, format: str) -> dict[str, Any]:
    """Returns the configuration for `logging.config.dictConfig`; both words are in upper case."""
    formatter = JsonFormatter if format == "JSON" else TextFormatter
    quiet = level if logging.getLevelName(level) > logging.WARNING else "WARNING"
    access = {"handlers": ["access"], "level": "INFO", "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"access": {"()": AccessFields, "escaped": format != "JSON"}},
        "formatters": {"line": {"()": formatter}},
        "handlers": {
            "lines": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            },
            "access": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "filters": ["access"],  # not of the logger: a process that is forked would have them twice
                "stream": "ext://sys.stdout",
            },
        },
        "loggers": {
            **{name: {"level": quiet} for name in _QUIET},
            **{name: {"level": level, "propagate": True} for name in _SERVERS},
            **dict.fromkeys(_ACCESS, access),
        },
        "root": {"handlers": ["lines"], "level": level},
    }


def has_one_form() -> bool:
    """Returns whether the lines of this process are written in one form, by `diptych run` or `configure_logging`."""
    own = (TextFormatter, JsonFormatter)
    return any(isinstance(handler.formatter, own) for handler in logging.root.handlers)


def log_what_python_writes() -> None:
    """Has warnings, and errors that end a thread or can't be raised, logged: Python writes them in a form of its own.

    Without a handler of ours they are written by whoever wrote them before.
    """
    logging.captureWarnings(True)
    if threading.excepthook is not _log_thread:
        global _before
        _before = (threading.excepthook, sys.unraisablehook)
        threading.excepthook, sys.unraisablehook = _log_thread, _log_unraisable


_before = (threading.excepthook, sys.unraisablehook)


def _log_thread(error: threading.ExceptHookArgs) -> None:
    if not has_one_form():
        _before[0](error)
    elif not issubclass(error.exc_type, SystemExit):  # which ends a thread in good order
        _log_error("py.threads", "an error has ended %s", error.thread, error)


def _log_unraisable(error: sys.UnraisableHookArgs) -> None:
    if not has_one_form():
        _before[1](error)
    else:
        _log_error("py.unraisable", f"{error.err_msg or 'exception ignored in'}: %r", error.object, error)


def _log_error(
    logger: str, text: str, of: object, error: threading.ExceptHookArgs | sys.UnraisableHookArgs
) -> None:
    value = error.exc_value or error.exc_type()
    logging.getLogger(logger).error(text, of, exc_info=(error.exc_type, value, error.exc_traceback))


def show_unless_configured(settings: Settings) -> None:
    """Shows diptych's own lines where nobody has configured logging: under a server that configures its own alone.

    Python shows warnings and errors of such a logger, and drops the rest. The handler is silent as soon as there is
    another for these lines.
    """
    logger = logging.getLogger("diptych")
    if logging.root.handlers or logger.handlers:
        return
    handler = _LastResort()
    handler.setFormatter(JsonFormatter() if settings.log_format == "JSON" else TextFormatter())
    logger.addHandler(handler)
    logger.setLevel(settings.log_level)


class _LastResort(logging.StreamHandler[Any]):
    def emit(self, record: logging.LogRecord) -> None:
        if not logging.root.handlers and len(logging.getLogger("diptych").handlers) == 1:
            super().emit(record)


class TextFormatter(logging.Formatter):
    """Lines for people: time in UTC, level, logger, worker and process, message."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the text of a record; lines after the first are indented."""
        who = (
            f"process {record.process}" if _worker is None else f"worker {_worker}, process {record.process}"
        )
        text = f"{_time(record, ' ')} {record.levelname} {record.name} [{who}]: {_message(record)}"
        if more := _trace(self, record):
            text = f"{text}\n{more}"
        return "\n    ".join(_printable(line) for line in text.split("\n"))


class JsonFormatter(logging.Formatter):
    """Lines for programs: a JSON object each, with the fields that the record has besides."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns a record as JSON, in ASCII."""
        found: dict[str, Any] = {
            "time": _time(record, "T"),
            "level": record.levelname,
            "logger": record.name,
            "message": _message(record),
            "worker": _worker,
            "process": record.process,
            "request": correlation_id(request_scope.get()),
            "exception": _trace(self, record) or None,
            "fields": _fields(record) or None,
        }
        found = {name: value for name, value in found.items() if value is not None}
        try:
            return _as_json(found)
        except Exception:  # fields of any kind: a NaN, keys that are no text, a value within itself …
            return _as_json({**found, "fields": dict(map(_representable, found["fields"].items()))})


def _as_json(value: object) -> str:
    return json.dumps(value, default=str, allow_nan=False)


def _representable(field: tuple[object, object]) -> tuple[str, object]:
    """Returns a field as JSON can have it: its name as text, and what JSON can't have as Python shows it."""
    name, value = field
    try:
        _as_json({"": value})
    except Exception:
        value = _shown(value)
    return name if isinstance(name, str) else _shown(name), value


def _shown(value: object) -> str:
    try:
        return repr(value)
    except Exception:  # of an application's own __repr__
        return f"<{type(value).__name__}>"


def _message(record: logging.LogRecord) -> str:
    """Returns the text of a record; if that can't be made, what it was to be made of: no line is lost."""
    try:
        return record.getMessage().rstrip("\n")
    except Exception:
        return f"{_shown(record.msg)} % {_shown(record.args)}"


def _time(record: logging.LogRecord, separator: str) -> str:
    moment = time.strftime(f"%Y-%m-%d{separator}%H:%M:%S", time.gmtime(record.created))
    return f"{moment}.{int(record.msecs):03}Z"


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    parts = [formatter.formatException(record.exc_info)] if record.exc_info else []
    if record.stack_info:
        parts.append(formatter.formatStack(record.stack_info))
    return "\n".join(parts)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    given = dict(record.args) if isinstance(record.args, Mapping) else {}
    return {**given, **{name: value for name, value in vars(record).items() if name not in _OWN}}


def _printable(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(
        c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode("ascii") for c in line
    )

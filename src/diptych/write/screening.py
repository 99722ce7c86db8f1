"""Statements forbidden to commands: ends of transactions, changes of the schema, several at once."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa
from sqlalchemy.schema import ExecutableDDLElement

from diptych.errors import UnitOfWorkError

_TOKEN = re.compile(
    r"""
      (?P<skipped> [\s\ufeff]+ | --[^\n\r]* )
    | (?P<comment> /\*.*?\*/ )
    | (?P<quoted> [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | "(?:[^"]|"")*" | \[[^\]]*\] | `[^`]*` )
    | (?P<dollar> \$(?P<tag>[A-Za-z_]\w*)?\$ .*? \$(?P=tag)?\$ )
    | (?P<word> [A-Za-z_]\w* )
    | (?P<end> ; )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)

_ENDS = frozenset({"BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE"})
_SCHEMA = frozenset(
    {
        *("CREATE", "ALTER", "DROP", "GRANT", "REVOKE", "COMMENT", "REINDEX", "VACUUM", "CLUSTER", "ANALYZE"),
        *("ATTACH", "DETACH", "PRAGMA", "REFRESH", "SECURITY", "IMPORT", "DISCARD", "DO", "CALL", "LISTEN"),
        *("UNLISTEN", "COPY", "LOCK", "CHECKPOINT", "LOAD"),
    }
)
_FOR_TRANSACTION = frozenset({"LOCAL", "CONSTRAINTS"})
"""Words after SET that leave nothing behind in the connection."""

_TRANSACTION = (
    "a command's transaction is begun and ended by diptych: let the handler return, or raise an error"
)
_NESTED = f"{_TRANSACTION}; for a part that may fail alone, use session.begin_nested()"
_DEFINITION = (
    "a command changes rows, not the schema or the server: put it into a migration, or run it outside"
)
_SEVERAL = "give one statement to each call"
_SETTING = "it would hold for later commands too: write SET LOCAL"


def check_statement(statement: object) -> None:
    """Raises ``UnitOfWorkError`` for a statement forbidden to commands."""
    if isinstance(statement, ExecutableDDLElement):
        raise UnitOfWorkError(f"{type(statement).__name__} was not sent: {_DEFINITION}")
    if isinstance(statement, str):
        raise UnitOfWorkError(
            'a text was not sent: wrap it, as in sqlalchemy.text("…"), and give its values as parameters'
        )
    if isinstance(statement, sa.TextClause):
        check_text(statement.text)


def check_text(text: str) -> None:
    """Raises ``UnitOfWorkError`` for the text of such a statement."""
    words, has_ended = list[str](), False
    for kind, token in _tokens(text):
        if kind == "end":
            has_ended = True
        elif has_ended:
            raise UnitOfWorkError(f"several statements in one text were not sent: {_SEVERAL}")
        elif kind == "word" and len(words) < 2:
            words.append(token.upper())
        elif len(words) < 2:
            words.append(token)
    first, second = (*words, "", "")[:2]
    if first in _ENDS:
        raise UnitOfWorkError(f"{first} was not sent: {_NESTED}")
    if first in _SCHEMA or (first, second) == ("SET", "TRANSACTION"):
        raise UnitOfWorkError(f"{' '.join(words)} was not sent: {_DEFINITION}")
    if first == "RESET" or (first == "SET" and second not in _FOR_TRANSACTION):
        raise UnitOfWorkError(f"{' '.join(words)} was not sent: {_SETTING}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    for match in _TOKEN.finditer(text):
        kind = str(match.lastgroup)
        if kind == "tag":
            kind = "dollar"
        if kind == "comment":
            # PostgreSQL ends the comment at its own end, SQLite at the first.
            if "/*" in match[0][2:]:
                raise UnitOfWorkError("a comment within a comment was not sent: leave it out")
        elif kind != "skipped":
            yield kind, match[0]

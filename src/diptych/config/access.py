"""The lines of the access log. Nothing that a client sends can forge a line.

A line is a record of the logger ``granian.access``, whose arguments are its fields by name: ``addr``, ``time``,
``method``, ``path``, ``query_string``, ``target`` (path and query string), ``scheme``, ``protocol``, ``status`` and
``dt_ms``, the milliseconds until the answer.
"""

from __future__ import annotations

import logging

FORMAT = '%(addr)s "%(method)s %(target)s %(protocol)s" %(status)d %(dt_ms).1f ms'
"""The message of the record. The time stands at the beginning of each line, whoever writes it."""


class AccessFields(logging.Filter):
    """Adds ``target``, and escapes what clients choose if ``escaped``: JSON escapes by itself. Removes no record."""

    def __init__(self, escaped: bool = True) -> None:
        super().__init__()
        self._is_escaped = escaped

    def filter(self, record: logging.LogRecord) -> bool:
        """Changes the arguments of the record, and returns True."""
        if isinstance(record.args, dict):
            query = record.args.get("query_string")
            fields = {**record.args, "target": f"{record.args.get('path', '')}{f'?{query}' if query else ''}"}
            record.args = (
                {name: _escaped(value) for name, value in fields.items()} if self._is_escaped else fields
            )
        return True


def _escaped(value: object) -> object:
    """Returns text with backslashes before quotes, and in place of control characters and others without a shape."""
    if not isinstance(value, str) or (value.isprintable() and '"' not in value and "\\" not in value):
        return value
    return "".join(map(_escaped_character, value))


def _escaped_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")

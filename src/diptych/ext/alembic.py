"""Alembic: helpers of ``env.py`` and revisions beside diptych's tables and triggers.

    from diptych.ext.alembic import include_name, include_object

    context.configure(…, include_name=include_name, include_object=include_object)

diptych's tables, functions and triggers are not the application's: ``diptych migrate`` makes and upgrades them, as a
start does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from diptych.sql.schema.own import OWN_TABLES

__all__ = ["include_name", "include_object"]


def include_name(name: str | None, type_: str, parent_names: Mapping[str, Any]) -> bool:
    """Returns False for the names of diptych's tables in the database: autogenerate leaves these tables unread.

    >>> from diptych.ext.alembic import include_name
    >>> include_name("diptych_log", "table", {}), include_name("books", "table", {})
    (False, True)
    """
    return type_ != "table" or name not in OWN_TABLES


def include_object(object: Any, name: str | None, type_: str, reflected: bool, compare_to: Any) -> bool:
    """Returns False for diptych's tables and for all their parts.

    >>> import sqlalchemy as sa
    >>> from diptych.ext.alembic import include_object
    >>> log = sa.Table("diptych_log", sa.MetaData(), sa.Column("position", sa.Integer))
    >>> include_object(log, log.name, "table", True, None)
    False
    >>> include_object(log.c.position, "position", "column", True, None)
    False
    """
    table = object if type_ == "table" else getattr(object, "table", None)
    return getattr(table, "name", name if type_ == "table" else None) not in OWN_TABLES

"""Column types that mean the same on every database."""

from __future__ import annotations

import sqlalchemy as sa


def code_point_text(length: int | None = None) -> sa.String:
    """Text that every database compares and orders by code point, case and accents told apart.

    ``length`` is the most it may hold, in code points. SQLite compares like this by itself; PostgreSQL does with
    the collation "C", whatever the locale of the database. The keys and lists of a read model need it.
    """
    plain = sa.String(length) if length else sa.Text()
    return plain.with_variant(sa.String(length, collation="C"), "postgresql")

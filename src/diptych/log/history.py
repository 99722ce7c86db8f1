"""The history of the change log: numbers of transactions mean nothing outside their database.

After a dump is restored elsewhere, rows are copied, or an SQLite file is put in the place of a different file, the
log holds rows with numbers of some former database, and the fence rows vouch for documents made from former rows. So
the single row of ``diptych_history`` records the identity of the database in which the log was begun. A process that
finds the identity changed adopts the database: see ``fence/adoption.py``.
"""

from __future__ import annotations

import sqlalchemy as sa

from diptych.log.table import LOG, METADATA

HISTORY = sa.Table(
    "diptych_history",
    METADATA,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("id", sa.Integer, primary_key=True),  # there is a single row
    sa.Column("name", sa.Text, nullable=False),  # random bits, new with each adoption
    sa.Column("database", sa.Text, nullable=False),  # `Database.identity` when the database was adopted
    sa.Column("first_position", sa.BigInteger, nullable=False),  # of the log's rows of this history
    sa.Column("clock", sa.Text, nullable=False),  # SQLite: the machine's clock of all times in the fence
)


# Not by `position` alone: PostgreSQL's planner would use its index, and walk the whole log of this history.
OF_THIS_HISTORY = LOG.c.position + 0 >= sa.select(HISTORY.c.first_position).scalar_subquery()
"""Condition for rows of the log that belong to the present history of the database.

★ Readers with a cursor read only these rows. All other rows have numbers of a former database: numbers greater than
the present ones would be read again by every pass, and put old states over the rows; and again on the day when the
present numbers reach them.
"""


def is_same_database(one: str, other: str) -> bool:
    """Returns whether two identities may be of the same database. Parts unknown to the user tell nothing."""
    return all(a == b or not (a and b) for a, b in zip(one.split(":"), other.split(":"), strict=False))


def fuller(one: str, other: str) -> str:
    """Returns two identities of the same database, merged."""
    return ":".join(a or b for a, b in zip(one.split(":"), other.split(":"), strict=False))

"""Of which history the change log is: the numbers of a database's transactions mean nothing in another one.

A dump that is restored elsewhere, rows that are copied, an SQLite file that is put in the place of another: there the
log holds rows whose numbers are of somewhere else, and the fence rows vouch for documents that other rows were made
from. So the database says itself, in the one row of ``diptych_history``, which one it was when its log was begun.
Who finds it to be another one now adopts it: see ``adoption``.
"""

from __future__ import annotations

import sqlalchemy as sa

from diptych.log.table import LOG, METADATA

HISTORY = sa.Table(
    "diptych_history",
    METADATA,
    # The table is made and upgraded by the migrations; here are the columns that statements name.
    sa.Column("id", sa.Integer, primary_key=True),  # there is one row
    sa.Column("name", sa.Text, nullable=False),  # random bits, new with each adoption
    sa.Column("database", sa.Text, nullable=False),  # `Engines.identity` of the one that it was adopted by
    sa.Column("first_position", sa.BigInteger, nullable=False),  # of the log's rows that are of this history
    sa.Column("clock", sa.Text, nullable=False),  # SQLite: the machine's clock that times are of
)


# Not by `position` alone: PostgreSQL's planner would take its index, and walk the whole log of this history.
OF_THIS_HISTORY = LOG.c.position + 0 >= sa.select(HISTORY.c.first_position).scalar_subquery()
"""Whether a row of the log is of the history that the database has now.

★ Who reads the log by cursors reads these alone. The numbers of the others are of another database: those that are
greater than this one's would be read again by every pass, and put old states over the rows; and so again on the day
when this one's numbers reach them.
"""


def is_same_database(one: str, other: str) -> bool:
    """Whether two identities may be of one database. What a user may not know of it tells nothing."""
    return all(a == b or not (a and b) for a, b in zip(one.split(":"), other.split(":"), strict=False))


def fuller(one: str, other: str) -> str:
    """All that two identities of one database tell of it."""
    return ":".join(a or b for a, b in zip(one.split(":"), other.split(":"), strict=False))

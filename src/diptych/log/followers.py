"""Followers of the change log: readers with a cursor, each a row of a table."""

from __future__ import annotations

from typing import NamedTuple

import sqlalchemy as sa

from diptych.log.expressions import Value
from diptych.log.history import OF_THIS_HISTORY
from diptych.log.reading import LOG_STATEMENTS


class Followers(NamedTuple):
    """A table of followers.

    ``cursor`` is the column of the snapshot up to which a follower has read, as text, and null without a cursor;
    ``stamp`` is ``Snapshot.stamp`` of that snapshot. ``close_abandoned`` takes the cursor away from each follower
    that has given no sign of life for ``p_age_s`` seconds by SQL's clock.
    """

    cursor: sa.Column[str]
    stamp: sa.Column[int]
    close_abandoned: sa.Update


def seen_by_all(followers: Followers, database: str) -> Value:
    """Returns the condition for rows of the log read by every follower. ``database`` is the name of the dialect.

    ★ Retention deletes no other rows: a change deleted before a follower has read it never reaches Redis.
    Rows of a former history are of no use to any cursor.
    """
    unseen = LOG_STATEMENTS[database].unseen_by(followers.cursor, followers.stamp)
    return ~sa.exists().where(followers.cursor.is_not(None), unseen, OF_THIS_HISTORY)

"""Titles of other programs, and of earlier versions, made ready to be searched for."""

from __future__ import annotations

import sqlalchemy as sa

from demo_app.models.book import Book
from demo_app.models.folding import folded
from diptych import Diptych

_AT_ONCE = 1000


async def fold_titles(catalogue: Diptych) -> int:
    """Gives a `search_title` to each book without one; returns how many."""
    unfolded = sa.select(Book.title).where(Book.search_title.is_(None))
    # A row whose title changes meanwhile has been folded by whoever changes it.
    change = (
        sa.update(Book)
        .where(Book.title == sa.bindparam("of"), Book.search_title.is_(None))
        .values(search_title=sa.bindparam("as"))
    )
    titles = list((await catalogue.orm.execute(unfolded)).scalars())
    for at in range(0, len(titles), _AT_ONCE):
        rows = [{"of": title, "as": folded(title)} for title in titles[at : at + _AT_ONCE]]
        await catalogue.orm.execute(change, rows)
    return len(titles)

"""Whole commands of the catalogue, with its default settings: each changes one book, whose readers Redis answers."""

from __future__ import annotations

import asyncio
import itertools
from functools import partial

from benchmarks.books import title
from benchmarks.catalogue import answered_by_redis
from benchmarks.jobs.orders import take_orders
from benchmarks.repeated import many_at_once, one_at_a_time
from benchmarks.runner import Candidate, Sample
from demo_app.catalogue import create_catalogue
from demo_app.messages import BookChanges, EditBook, GetBook
from diptych import Diptych


class Edits:
    """Commands on the books from ``first`` on, which are this process's own."""

    def __init__(self, app: Diptych) -> None:
        self._app = app
        self._stock = itertools.count(1000)
        self._last: dict[int, int] = {}

    async def one_at_a_time(self, first: int, calls: int) -> Sample:
        """So many commands, one after the other."""
        return await self._checked(first, partial(one_at_a_time, partial(self._edit, first), calls))

    async def many_at_once(self, first: int, clients: int, duration_s: float) -> Sample:
        """As many commands as so many clients can, each with a book of its own."""
        return await self._checked(
            first, partial(many_at_once, partial(self._edit, first), clients, duration_s)
        )

    async def _edit(self, first: int, number: int) -> None:
        stock = next(self._stock)
        book = await self._app.execute(EditBook(title(first + number), BookChanges(stock_quantity=stock)))
        assert book is not None
        self._last[first + number] = stock

    async def _checked(self, first: int, measure: Candidate) -> Sample:
        """Makes sure that what was measured were commands whose readers are served from Redis."""
        await answered_by_redis(self._app)
        sample = await measure()
        document = await self._app.ask(GetBook(title(first)))
        found = document.decode()
        assert found is not None
        assert found.stock_quantity == self._last[first]
        # It may be, for a moment, on a machine that is so busy that a lease was not renewed in time.
        return {**sample, "then answered by SQL, in all": float(document.served.store != "redis")}


async def main() -> None:
    """Where the data are is said by the environment."""
    async with create_catalogue() as app:
        edits = Edits(app)
        await answered_by_redis(app)
        await take_orders({"one at a time": edits.one_at_a_time, "many at once": edits.many_at_once})


if __name__ == "__main__":
    asyncio.run(main())

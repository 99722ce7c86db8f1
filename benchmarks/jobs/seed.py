"""Gives databases their tables and books, as ``benchmarks.books.seed`` says."""

from __future__ import annotations

import asyncio

from benchmarks.books import seed
from benchmarks.jobs.orders import take_orders

if __name__ == "__main__":
    asyncio.run(take_orders({"seed": seed}))

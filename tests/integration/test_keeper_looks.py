"""Keepers that follow look in time."""

from __future__ import annotations

import msgspec

from diptych.hinge.leases import MARGIN
from tests.catalogue import catalogue, keeper_of


async def test_who_follows_looks_while_the_lease_has_some_time_left(sqlite_url, valkey):
    """Otherwise SQL answers, between the end of the lease and the pass of the keeper that takes over."""
    async with catalogue(sqlite_url, valkey.url) as app:
        keeper = keeper_of(app)
        row = await keeper.read_row()
        promised = msgspec.structs.replace(
            row,
            lease_until=row.now + MARGIN * keeper.lease_s,
            building_until=row.now,
            passes_completed=1_000_000,
        )
        looks = [keeper._until_next_look(promised) for _ in range(1000)]
        assert min(looks) >= 0.7 * keeper.lease_s  # the leader has had its turn, also while nothing changes
        assert max(looks) <= 0.9 * keeper.lease_s

"""The deletion of generations, in small steps: Redis answers nobody else while it deletes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from diptych.fence.contract import FenceId
from diptych.read.store.keys import Keys
from diptych.redis.service import Link, RedisService


async def delete_abandoned(redis: RedisService, fence: FenceId) -> bool:
    """Deletes the generations of a read model of a declaration that nobody keeps any more.

    Should somebody begin to keep it again meanwhile, that is with another generation, which is not touched. False,
    and nothing is deleted, if there is a lease: then another database is kept there under the same namespace.
    """
    keys = Keys(fence)
    async with redis.commanding() as link:
        if await link.call("EXISTS", keys.lease):
            return False
        names = await link.call("SMEMBERS", keys.generations)
        generations = [keys.of(name, b"") for name in names]
        # Together: without a marker a generation is neither written nor published, without a lease it is not read.
        await link.call("UNLINK", keys.lease, *(generation + b"marker" for generation in generations))
        await delete_keys(link, keys.prefix, generations)
        if names:
            await link.call("SREM", keys.generations, *names)
        return True


async def delete_keys(link: Link, prefix: bytes, generations: Sequence[bytes]) -> None:
    """Deletes what begins with these, in small steps, since Redis answers nobody else meanwhile."""
    async for found in _found(link, prefix):
        doomed = [key for key in found if key.startswith(tuple(generations))]
        if doomed:
            await link.call("UNLINK", *doomed)


async def _found(link: Link, prefix: bytes) -> AsyncIterator[list[bytes]]:
    """The keys that begin with the prefix, some at a time."""
    cursor = b"0"
    while True:
        cursor, keys = await link.call("SCAN", cursor, "MATCH", prefix + b":*", "COUNT", 1000)
        if keys:
            yield keys
        if cursor == b"0":
            return

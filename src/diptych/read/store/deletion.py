"""The deletion of generations in small steps: Redis answers nobody else meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from diptych.fence.contract import FenceId
from diptych.read.store.keys import Keys
from diptych.redis.service import Channel, RedisService

_LOOKED_AT = 200
"""Number of keys that a SCAN looks at, about: with 1000, one took 90 ms while a table of Redis shrank."""


async def delete_abandoned(redis: RedisService, fence: FenceId, rest: Callable[[], Awaitable[None]]) -> bool:
    """Deletes the generations of a read model whose fingerprint nobody keeps any more, with ``rest`` after each step.

    A keeper that begins to keep the same fingerprint meanwhile does so with another generation, which is not touched.
    Returns False, and deletes nothing, if there is a lease: then another database is kept there under the same
    namespace.
    """
    keys = Keys(fence)
    async with redis.commanding() as link:
        if await link.call("EXISTS", keys.lease):
            return False
        names = await link.call("SMEMBERS", keys.generations)
        generations = [keys.of(name, b"") for name in names]
        # Together: without a marker a generation is neither written nor published, without a lease it is not read.
        await link.call(
            "UNLINK", keys.lease, keys.keeper, *(generation + b"marker" for generation in generations)
        )
        await delete_keys(link, keys.prefix, generations, rest)
        if names:
            await link.call("SREM", keys.generations, *names)
        return True


async def delete_keys(
    link: Channel,
    prefix: bytes,
    generations: Sequence[bytes],
    rest: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Deletes all keys of these generations. ``prefix`` is the read model's, ``generations`` are prefixes of keys.

    ``rest`` is called after each step.
    """
    async for found in _found(link, prefix):
        doomed = [key for key in found if key.startswith(tuple(generations))]
        if doomed:
            await link.call("UNLINK", *doomed)
        if rest is not None:
            await rest()


async def _found(link: Channel, prefix: bytes) -> AsyncIterator[list[bytes]]:
    """Yields the keys of a read model, some at a time."""
    cursor = b"0"
    while True:
        cursor, keys = await link.call("SCAN", cursor, "MATCH", prefix + b":*", "COUNT", _LOOKED_AT)
        if keys:
            yield keys
        if cursor == b"0":
            return

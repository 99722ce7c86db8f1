"""A survey of a generation in Redis, for people: how many documents, how large, who makes the passes.

The work is bounded, however much Redis holds. What the user may not ask (`NOPERM`) is not known then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ResponseError

from diptych.read.addresses import is_second
from diptych.read.lists.index import ListIndex
from diptych.read.store.keys import Keys
from diptych.redis.channel import Channel

_SCANS = 50
_KEYS_AT_ONCE = 1000
"""Limits of a survey: so many calls of SCAN, each over about so many keys, of whatever application."""

_MEASURED = 200
"""Number of documents that are measured at most; the others are taken to be as large on average."""

_SAMPLES = 100
"""Number of elements that Redis measures of a hash or a sorted set."""


class Survey(NamedTuple):
    """The facts of a generation; None for what could not be asked.

    ``lease_ends_ms`` is by the server's clock, None without a lease. ``passes_by`` is the process that made the last
    pass, while its lease stands. ``documents`` leaves ``set_aside`` rows out; the number is exact for a read model
    with lists, and otherwise counts deleted documents for some seconds. ``memory_bytes`` is an estimate.
    """

    lease_ends_ms: int | None
    passes_by: str | None
    documents: int | None
    set_aside: int
    memory_bytes: int | None


class _Scan(NamedTuple):
    """The keys of documents that were found: their number, that of the copies among them, and a sample.

    ``visited`` is about the number of keys that Redis has looked through, None if these are all.
    """

    number: int
    copies: int
    sample: Sequence[bytes]
    visited: int | None


async def survey_of(link: Channel, keys: Keys, lists: Sequence[ListIndex], generation: bytes) -> Survey:
    """Looks at a generation of a read model with these lists."""
    ends_ms, keeper, set_aside = await asyncio.gather(
        link.call("PEXPIRETIME", keys.lease),
        link.call("GET", keys.keeper),
        link.call("ZCARD", keys.set_aside(generation)),
    )
    scan = await _scanned(link, keys.document(generation, b""))
    stored: float | None = 1.0  # how many keys there are for each that was found
    if scan.visited is not None:
        size = await _asked(link, "DBSIZE")
        stored = None if size is None else max(1.0, size / scan.visited)
    documents = await _asked(link, "HLEN", keys.entries(generation)) if lists else None
    if not lists and stored is not None:
        documents = round((scan.number - scan.copies) * stored)
    others = [keys.index(generation, index) for index in lists]
    others += [keys.entries(generation), keys.recent(generation), keys.tombstones(generation)]
    others.append(keys.carried(generation))
    sizes = await asyncio.gather(*(_asked(link, "MEMORY", "USAGE", key) for key in scan.sample))
    sizes_of_others = await asyncio.gather(
        *(_asked(link, "MEMORY", "USAGE", key, "SAMPLES", _SAMPLES) for key in others)
    )
    known = [size for size in sizes if size is not None]
    memory = None
    if stored is not None and (known or not scan.number):
        of_documents = scan.number * stored * sum(known) / max(1, len(known))
        memory = round(of_documents + sum(size or 0 for size in sizes_of_others))
    return Survey(
        ends_ms if ends_ms > 0 else None,
        keeper.decode("utf-8", "replace") if keeper else None,
        None if documents is None else max(0, documents - set_aside),
        set_aside,
        memory,
    )


async def _scanned(link: Channel, prefix: bytes) -> _Scan:
    cursor, number, copies, scans = b"0", 0, 0, 0
    sample: list[bytes] = []
    while scans < _SCANS:
        scans += 1
        cursor, found = await link.call("SCAN", cursor, "MATCH", prefix + b"*", "COUNT", _KEYS_AT_ONCE)
        number += len(found)
        copies += sum(is_second(key[len(prefix) :]) for key in found)
        sample += found[: _MEASURED - len(sample)]
        if cursor == b"0":
            return _Scan(number, copies, sample, None)
    return _Scan(number, copies, sample, scans * _KEYS_AT_ONCE)


async def _asked(link: Channel, *command: Any) -> int | None:
    try:
        return int(await link.call(*command) or 0)
    except ResponseError:  # the user may not ask, or the service has no such command
        return None

"""The call of a script inside Redis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis.exceptions import NoScriptError

from diptych.read.store import scripts
from diptych.redis.channel import Channel


class Script:
    """A script called by its hash, and sent whole to a server without the hash (after a restart, say)."""

    def __init__(self, name: str, *, read_only: bool = False, common: bool = True) -> None:
        self._source = scripts.source(name, common=common)
        self._hash: bytes | None = None
        self._command = "EVALSHA_RO" if read_only else "EVALSHA"

    async def __call__(self, link: Channel, keys: Sequence[bytes], arguments: Sequence[Any]) -> Any:
        if self._hash is None:
            self._hash = await link.call("SCRIPT", "LOAD", self._source)
        try:
            return await link.call(self._command, self._hash, len(keys), *keys, *arguments)
        except NoScriptError:
            self._hash = await link.call("SCRIPT", "LOAD", self._source)
            return await link.call(self._command, self._hash, len(keys), *keys, *arguments)

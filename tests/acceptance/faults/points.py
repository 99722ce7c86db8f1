"""Named points in diptych at which a process can be made to die, to stop or to wait, and its rules to be broken.

Everything here that knows diptych's inside is in the tables below. A name that is not there is an error at once.
"""

from __future__ import annotations

import asyncio
import functools
import os
import pkgutil
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import sqlalchemy as sa

POINTS = {
    "commit": (
        "diptych.write.units.UnitsOfWork._commit_transaction",
        "diptych.write.units.UnitsOfWork._commit_by_itself",
    ),
    "apply": ("diptych.read.store.store.RedisStore.apply",),
    "fill": ("diptych.hinge.builder.Builder._fill",),
    "publish": ("diptych.read.store.store.RedisStore.publish",),
    "recompute": (
        "diptych.hinge.replay.LogReplay._rows_at",
        "diptych.hinge.direct.DirectWriter._writes_of",
    ),
}

Announce = Callable[[str], None]


class Points:
    """The armed actions of this process: each is done once, when its point is passed next."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self._armed: dict[tuple[str, str], str] = {}

    def install(self) -> None:
        """Puts itself around the functions of ``POINTS``."""
        for name, path in ((name, path) for name, paths in POINTS.items() for path in paths):
            owner, attribute = _owner_of(path)
            setattr(owner, attribute, self._around(name, getattr(owner, attribute)))

    def arm(self, name: str, when: str, action: str) -> None:
        """``when`` is "before" or "after"; the action "kill", "stop" (SIGSTOP) or seconds to wait."""
        if name not in POINTS or when not in ("before", "after"):
            raise ValueError(f"no such point: {when} {name}")
        self._armed[name, when] = action

    def disarm(self) -> None:
        """Forgets what is armed."""
        self._armed.clear()

    def _around(self, name: str, function: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(function)
        async def passing(*arguments: Any, **named: Any) -> Any:
            if self._armed:
                await self._reached(name, "before")
            result = await function(*arguments, **named)
            if self._armed:
                await self._reached(name, "after")
            return result

        return passing

    async def _reached(self, name: str, when: str) -> None:
        action = self._armed.pop((name, when), None)
        if action is None:
            return
        self._announce(f"reached {when} {name}")
        match action:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            case seconds:
                await asyncio.sleep(float(seconds))


def _owner_of(path: str) -> tuple[Any, str]:
    owner, _, attribute = path.rpartition(".")
    found = pkgutil.resolve_name(owner)
    if not callable(getattr(found, attribute, None)):
        raise LookupError(f"{path} is not there any more: tell tests.acceptance.faults.points its new name")
    return found, attribute


# Rules that can be switched off, to see that the checker notices


def break_rule(name: str) -> None:
    """Switches one of ``RULES`` off in this process, for tests of the checker; before anything starts."""
    RULES[name]()


def _skip_apply() -> None:
    from diptych.read.store.store import RedisStore

    async def apply(*_arguments: Any, **_named: Any) -> str:
        return "OK"

    RedisStore.apply = apply  # type: ignore[method-assign]


def _replace_in_scripts(**replaced: tuple[str, str]) -> None:
    """Changes the text of scripts that are sent to Redis from now on."""
    from diptych.read.store import scripts

    original = scripts.source

    def source(name: str, **named: Any) -> str:
        text = original(name, **named)
        if name in replaced:
            old, new = replaced[name]
            if text.count(old) != 1:
                raise LookupError(
                    f"{old!r} is not in {name}.lua any more: tell tests.acceptance.faults.points"
                )
            text = text.replace(old, new)
        return text

    scripts.source = source


def _skip_comparison() -> None:
    _replace_in_scripts(apply=("stored == '' or is_newer(stamp, stored)", "true"))


def _skip_lease() -> None:
    # Readers trust for an hour what was promised for a lease.
    _replace_in_scripts(publish=("ARGV[3], 'PXAT', ARGV[4])", "ARGV[3], 'PXAT', ARGV[4] + 3600000)"))


def _skip_others() -> None:
    # What other processes have committed counts as being in Redis.
    from diptych.fence.arrivals import Arrivals

    has = Arrivals.has

    def has_or_is_of_others(self: Arrivals, entry: Any) -> bool:
        return self.own.get(entry.position) is None or has(self, entry)

    Arrivals.has = has_or_is_of_others  # type: ignore[method-assign]


def _skip_cursors() -> None:
    # The log forgets what is old, whether or not everybody has read it.
    from diptych.log import retention

    vars(retention)["seen_by_all"] = lambda _followers, _database: sa.true()


def _skip_identity() -> None:
    # Another database is taken for the one there was.
    from diptych.fence import adoption, fence

    for module in (adoption, fence):
        vars(module)["is_same_database"] = lambda _one, _other: True


def _skip_clock() -> None:
    # Each process goes by its own clock.
    from diptych.sql.sqlite.machine import MachineClock

    ahead_s = float(os.environ.get("FAKETIME", "0").rstrip("s"))
    now = MachineClock.now

    def own(self: MachineClock, text: str | None) -> float | None:
        found = now(self, text)
        return None if found is None else found + ahead_s

    MachineClock.now = own  # type: ignore[method-assign]


def _skip_capture() -> None:
    # Nothing makes the triggers that log changes by anybody, and nobody misses them.
    from diptych.fence import capture

    async def none(*_arguments: Any, **_named: Any) -> list[Any]:
        return []

    vars(capture).update(mend=none, broken=none)


def _skip_fingerprint() -> None:
    # Triggers that were away for a moment are not noticed.
    from diptych.fence import capture

    async def none(*_arguments: Any, **_named: Any) -> list[Any]:
        return []

    vars(capture)["broken"] = none


def _skip_entries_of_triggers() -> None:
    # A command takes what it has changed through ORMService for all that it has changed.
    from diptych.write.unit_of_work import UnitOfWork

    async def connection(self: UnitOfWork, *, has_more: bool) -> Any:
        return await self.transaction.connection()

    UnitOfWork._connection = connection  # type: ignore[method-assign]


def _skip_snapshots() -> None:
    # A command takes the documents of several rows for written.
    from diptych.hinge.direct import DirectWriter

    async def write(_self: DirectWriter, _row: Any) -> bool:
        return True

    DirectWriter._write = write  # type: ignore[method-assign, assignment]


RULES: dict[str, Callable[[], None]] = {
    "apply": _skip_apply,
    "comparison": _skip_comparison,
    "lease": _skip_lease,
    "what others have committed": _skip_others,
    "documents of several rows": _skip_snapshots,
    "what cursors have not seen is kept": _skip_cursors,
    "another database is noticed": _skip_identity,
    "one clock on SQLite": _skip_clock,
    "changes by anybody are captured": _skip_capture,
    "changes without triggers are noticed": _skip_fingerprint,
    "what sessions have changed is looked for": _skip_entries_of_triggers,
}

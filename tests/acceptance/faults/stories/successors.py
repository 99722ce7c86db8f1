"""Commands that build on what one has done that never came to its end.

A process commits a command and is killed, or stands still, before anybody else learns of it; at once others rename
back, take the address that it has freed, try the same again, or are refused because of it. All of it is on keys that
nobody else changes, so that the state to begin with is known.
"""

from __future__ import annotations

import random

import msgspec

from tests.acceptance.faults.beside import statements as beside
from tests.acceptance.faults.commands import Step
from tests.acceptance.faults.driver import Cluster
from tests.acceptance.faults.load import KIN
from tests.acceptance.faults.open_items import OF_TWO, WAYS
from tests.acceptance.faults.process import Worker
from tests.acceptance.faults.schedule import fault
from tests.faults import Fault

_FIRST = (
    *("rename", "rename", "change", "delete", "re-create", "add", "rename owner"),
    *(
        "open: rename",
        "open: change",
        "open: delete",
        "open: add",
        "open: save",
        "open: change by a statement",
    ),
)
"""What the process does that is killed."""

_FOLLOWING = ("look", "look", "retry", "claim", "add", "delete", "change", "rename", "rename")
_FOLLOWING_OPEN = (
    *("open: look", "open: look", "open: claim", "open: add", "open: delete", "open: change", "open: rename"),
    *("open: swap", "open: upsert", "open: change several"),
)


@fault(Fault.KILLED_BEFORE_APPLY_AND_BUILT_ON, "process", "sql")
async def killed_and_built_on(cluster: Cluster, chance: random.Random) -> None:
    for _ in range(2):
        await _built_on(cluster, chance, "kill")


@fault(Fault.STOPPED_BEFORE_APPLY_AND_BUILT_ON, "process", "sql")
async def stopped_and_built_on(cluster: Cluster, chance: random.Random) -> None:
    """The message to Redis comes in the end, when nobody counts with it any more."""
    for _ in range(4):
        await _built_on(cluster, chance, "stop")


async def _built_on(cluster: Cluster, chance: random.Random, action: str) -> None:
    last = chance.choice(cluster.alive)
    others = [worker for worker in cluster.alive if worker is not last]
    first = _first(cluster, chance)
    await _prepare(others[0], cluster, first)
    last.expected_to_end |= action == "kill"
    await last.order("last", action, _told([first]))
    assert await last.hears("reached", timeout_s=10), "the command was not committed"
    last.stands_still = True
    try:
        for worker in others:
            await worker.order("do", _told(_following(cluster, chance, first)))
        if action == "stop":
            await last.is_stopped()
            await cluster.leases(chance.choice([0.02, 0.1, 0.3, 1.5]))
    finally:
        last.go_on()
    for worker in others:
        assert await worker.hears("finished do", timeout_s=20), f"process {worker.number} is not done"
    if action == "kill":
        await cluster.replace(last)
    else:
        assert await last.hears("finished last", timeout_s=20), "the stopped command has not ended"


def _first(cluster: Cluster, chance: random.Random) -> Step:
    kind = chance.choice(_FIRST)
    kin = beside.KIN if kind in WAYS else KIN
    keys = [str(chance.randint(1, 3))] if kind == "rename owner" else chance.sample(kin, 2)
    return Step(kind, keys if kind.endswith("rename") else keys[:1], cluster.next_write())


async def _prepare(worker: Worker, cluster: Cluster, first: Step) -> None:
    """Has everything there that the command needs, nothing that it must not find, and all of it be known."""
    if first.kind == "rename owner":
        return
    free = first.keys[-1] if first.kind.endswith(("rename", "add")) else None
    prefix, kin = ("open: ", beside.KIN) if first.kind in WAYS else ("", KIN)
    steps = [
        Step(prefix + ("delete" if key == free else "claim"), [key], cluster.next_write()) for key in kin
    ]
    await worker.order("do", _told(steps))
    assert await worker.hears("finished do", timeout_s=20), f"process {worker.number} is not done"


def _following(cluster: Cluster, chance: random.Random, first: Step) -> list[Step]:
    """A few commands of one process that come upon what was done."""
    steps = []
    for _ in range(chance.randint(1, 3)):
        audit = chance.random() < 0.7
        if first.kind == "rename owner":
            kind, keys = chance.choice(["look at owner", "look at owner", "rename owner"]), first.keys
        else:
            kind = chance.choice(_FOLLOWING_OPEN if first.kind in WAYS else _FOLLOWING)
            keys = _keys(chance, kind, first)
        steps.append(Step(kind, keys, cluster.next_write(), former=first.write, audit=audit))
    return steps


def _keys(chance: random.Random, kind: str, first: Step) -> list[str]:
    """Mostly those of the first command, of which a rename may take one for another row."""
    key = chance.choice(first.keys)
    if kind != "rename" and kind not in OF_TWO:
        return [key]
    other = chance.choice([other for other in (beside.KIN if kind in WAYS else KIN) if other != key])
    return chance.choice([[other, key], [key, other]])


def _told(steps: list[Step]) -> str:
    return msgspec.json.encode(steps).decode()

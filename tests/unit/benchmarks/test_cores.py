"""The benchmarks measure a server that has a core to itself."""

from __future__ import annotations

import os

import pytest

from benchmarks.cores import ARE_PINNED, load_core, on_cores, server_core
from benchmarks.servers import stored
from benchmarks.valkey import valkey
from tests.servers import redis_binary, valkey_binary

pytestmark = pytest.mark.skipif(
    not ARE_PINNED or len(os.sched_getaffinity(0)) < 2,
    reason="processes are pinned on Linux, to one core of several",
)


def test_the_server_and_the_load_have_different_cores():
    assert server_core().isdisjoint(load_core())


@pytest.mark.skipif(not (valkey_binary() or redis_binary()), reason="missing component: Valkey or Redis")
def test_what_is_started_while_a_valkey_runs_is_not_kept_on_its_core():
    before = os.sched_getaffinity(0)
    with stored(valkey()) as store:
        assert os.sched_getaffinity(store.pid) == load_core()
        assert os.sched_getaffinity(0) == before
        with on_cores(load_core()):
            assert server_core().isdisjoint(load_core())

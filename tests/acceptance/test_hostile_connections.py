"""Connections that are held open stop nobody: they are ended in time, and others are served meanwhile."""

from __future__ import annotations

import pytest

from tests.acceptance.hostile.flood import KINDS, flood, rounds
from tests.acceptance.hostile.serving import LIMIT_S, at_limit, plenty

NUMBER = 1_200
# Other tests have the machine at the same time. `python -m tests.acceptance.hostile` demands a second.
HEALTH_S = 4.0


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", [1, 2])
def test_silent_connections_half_heads_and_half_bodies_are_ended_in_time(workers: int) -> None:
    with plenty(workers) as server:
        for kinds in rounds():
            found = flood(server.port, kinds, NUMBER, wait_s=10 * LIMIT_S)
            assert (found.left, found.failures) == (0, [])
            assert max(found.health_s) < HEALTH_S
            for kind, ending in found.endings.items():
                assert ending.number == NUMBER
                assert ending.longest_s < 3 * LIMIT_S
                answers = {b"HTTP/1.1 408 Request Timeout": NUMBER} if kind == "body" else {}
                assert ending.answers == answers
        assert "MAX_CONNECTIONS" not in server.log_file.read_text(), "the limit was never near"


@pytest.mark.parametrize("workers", [1, 2])
def test_at_the_limit_of_files_the_longest_silent_are_ended_and_others_are_served(workers: int) -> None:
    with at_limit(workers) as server:
        assert "126 connections at once at most for each process" in server.log_file.read_text()
        for kinds in (("silent",), tuple(KINDS)):
            found = flood(server.port, kinds, NUMBER, wait_s=10 * LIMIT_S)
            assert found.left == 0
            assert max(found.health_s) < HEALTH_S
            assert len(found.failures) <= 1, "a client may be taken for a silent one, and asks again"
        log = server.log_file.read_text()
        assert "Traceback" not in log
        # One line for each burst and process. A burst may fall into two on a busy machine.
        assert 2 <= log.count("connections near the limit of 126 were ended within") <= 2 * workers * 3

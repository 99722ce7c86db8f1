"""Answers to queries: what is kept of them for the same bytes, and what is not."""

from __future__ import annotations

from typing import Any

import pytest

from diptych.http import etag
from diptych.http.answers import Answers
from diptych.read.answers import Served

FROM_REDIS = Served("redis")
FROM_SQL = Served("sql", "no-lease")
SCOPE: dict[str, Any] = {"headers": []}


@pytest.mark.parametrize("size", [0, 1000, 1001, 100_000])
def test_the_headers_are_those_of_the_body_and_its_store(size):
    answers, bodies = Answers([(b"x-own", b"1")]), [b"a" * size, b"b" * size]
    for body in (*bodies, *bodies):
        for served, status in (
            (FROM_REDIS, b"diptych; hit"),
            (FROM_SQL, b"diptych; fwd=stale; detail=no-lease"),
        ):
            start, sent = answers.found(body, served, SCOPE)
            headers = dict(start["headers"])
            assert (start["status"], sent["body"]) == (200, body)
            assert headers[b"etag"] == etag(body).encode()
            assert headers[b"content-length"] == b"%d" % size
            assert headers[b"cache-status"] == status
            assert headers[b"x-own"] == b"1"


def test_what_is_added_to_an_answer_is_not_on_the_next_one():
    answers = Answers()
    first, _ = answers.found(b"{}", FROM_REDIS, SCOPE)
    first["headers"].append((b"set-cookie", b"of=another"))
    second, _ = answers.found(b"{}", FROM_REDIS, SCOPE)
    assert b"set-cookie" not in dict(second["headers"])


def test_a_client_that_has_the_body_is_sent_no_body_and_nothing_that_is_said_of_one():
    scope = {"headers": [(b"if-none-match", etag(b"{}").encode())]}
    start, sent = Answers().found(b"{}", FROM_REDIS, scope)
    assert (start["status"], sent["body"]) == (304, b"")
    headers = dict(start["headers"])
    assert headers[b"etag"] == etag(b"{}").encode()
    assert headers[b"cache-status"] == b"diptych; hit"
    assert headers.keys().isdisjoint({b"content-type", b"content-length"})


@pytest.mark.parametrize("size", [2, 5000])
def test_what_the_client_has_is_not_looked_for_in_a_request_that_does_not_say(size):
    body = b"a" * size
    scope = {"headers": [(b"if-none-match", etag(body).encode())]}
    assert Answers().found(body, FROM_REDIS, scope)[0]["status"] == 304
    assert Answers().found(body, FROM_REDIS, scope, is_conditional=False)[0]["status"] == 200

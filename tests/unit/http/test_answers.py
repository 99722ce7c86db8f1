"""Answers to queries: their status, headers and body, and which of it is remembered for equal bytes."""

from __future__ import annotations

from typing import Any

import pytest

from diptych import Document, Page, Served
from diptych.http import answer_query, etag
from diptych.http.answers import added_headers, answer_found

FROM_REDIS = Served("redis")
FROM_SQL = Served("sql", "no-lease")
SCOPE: dict[str, Any] = {"headers": []}


def document(body: bytes | None, served: Served = FROM_REDIS) -> Document[Any]:
    return Document(body, served, dict)


def asking_again(body: bytes) -> dict[str, Any]:
    return {"headers": [(b"if-none-match", etag(body).encode())]}


@pytest.mark.parametrize("size", [0, 1000, 1001, 100_000])
def test_the_headers_are_those_of_the_body_and_its_store(size):
    bodies = [b"a" * size, b"b" * size]
    for body in (*bodies, *bodies):
        for served, status in (
            (FROM_REDIS, b"diptych; hit"),
            (FROM_SQL, b"diptych; fwd=stale; detail=no-lease"),
        ):
            answer = answer_query(SCOPE, document(body, served))
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers == [
                (b"content-type", b"application/json"),
                (b"content-length", b"%d" % size),
                (b"etag", etag(body).encode()),
                (b"cache-status", status),
                (b"vary", b"Accept"),
                (b"cache-control", b"no-cache"),
            ]


@pytest.mark.parametrize("set_aside", [0, 3])
def test_a_page_says_how_many_rows_it_leaves_out(set_aside):
    answer = answer_query(SCOPE, Page(b"{}", FROM_REDIS, dict, set_aside))
    assert dict(answer.headers).get(b"diptych-set-aside") == (b"3" if set_aside else None)


def test_headers_are_text_for_the_response_classes_of_frameworks():
    answer = answer_query(SCOPE, document(b"{}"))
    assert answer.text_headers()["content-type"] == "application/json"
    assert len(answer.text_headers()) == len(answer.headers)


def test_what_is_added_to_an_answer_is_not_on_the_next_one():
    answer_query(SCOPE, document(b"{}")).headers.append((b"set-cookie", b"of=another"))
    assert b"set-cookie" not in dict(answer_query(SCOPE, document(b"{}")).headers)


def test_a_client_that_has_the_body_is_sent_no_body_and_nothing_that_is_said_of_one():
    answer = answer_query(asking_again(b"{}"), document(b"{}"))
    assert (answer.status, answer.body) == (304, b"")
    headers = dict(answer.headers)
    assert headers[b"etag"] == etag(b"{}").encode()
    assert headers[b"cache-status"] == b"diptych; hit"
    assert headers.keys().isdisjoint({b"content-type", b"content-length"})


@pytest.mark.parametrize("size", [2, 5000])
def test_what_the_client_has_is_not_looked_for_in_a_request_that_does_not_say(size):
    body = b"a" * size
    assert answer_query(asking_again(body), document(body)).status == 304
    assert answer_found(asking_again(body), document(body), [], is_conditional=False).status == 200


def test_what_is_not_there_is_a_problem_that_names_the_store():
    answer = answer_query(SCOPE, document(None, FROM_SQL))
    headers = dict(answer.headers)
    assert answer.status == 404
    assert answer.body.startswith(b'{"type":"about:blank","title":"Not Found","status":404')
    assert headers[b"content-type"] == b"application/problem+json"
    assert headers[b"content-length"] == b"%d" % len(answer.body)
    assert headers[b"cache-status"] == b"diptych; fwd=stale; detail=no-lease"
    assert headers[b"cache-control"] == b"no-cache"
    assert b"etag" not in headers


def test_a_query_without_a_result_has_no_store_to_name():
    answer = answer_query(SCOPE, None)
    assert answer.status == 404
    assert b"cache-status" not in dict(answer.headers)


def test_headers_may_be_added_but_not_in_place_of_those_of_every_answer():
    added = added_headers([(b"x-own", b"1"), (b"vary", b"Cookie")])
    answer = answer_found(SCOPE, document(b"{}"), added)
    assert (b"x-own", b"1") in answer.headers
    assert [value for name, value in answer.headers if name == b"vary"] == [b"Accept"]

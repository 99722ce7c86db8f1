"""An answer says which store gave it, and why."""

from __future__ import annotations

from typing import Literal

import pytest

from diptych import Served
from diptych.http import QUERY_HEADERS, cache_status, etag, is_unchanged


@pytest.mark.parametrize(
    ("store", "reason", "value"),
    [
        ("redis", None, "diptych; hit"),
        ("sql", None, "diptych; fwd=miss"),
        ("sql", "no-redis", "diptych; fwd=bypass; detail=no-redis"),
        ("sql", "redis-refused", "diptych; fwd=bypass; detail=redis-refused"),
        ("sql", "no-key", "diptych; fwd=bypass; detail=no-key"),
        ("sql", "rebuilding", "diptych; fwd=stale; detail=rebuilding"),
        ("sql", "starting", "diptych; fwd=stale; detail=starting"),
        ("sql", "no-lease", "diptych; fwd=stale; detail=no-lease"),
        ("sql", "other-database", "diptych; fwd=stale; detail=other-database"),
        ("sql", "other-server", "diptych; fwd=stale; detail=other-server"),
        ("sql", "failing", "diptych; fwd=stale; detail=failing"),
        ("sql", "sql-away", "diptych; fwd=stale; detail=sql-away"),
        ("sql", "redis-away", "diptych; fwd=miss; detail=redis-away"),
        ("sql", "lost", "diptych; fwd=miss; detail=lost"),
        ("sql", "something-new", "diptych; fwd=miss; detail=something-new"),
    ],
)
def test_the_store_is_named(store: Literal["redis", "sql"], reason: str | None, value: str) -> None:
    assert cache_status(Served(store, reason)) == value


@pytest.mark.parametrize("reason", ["", "two words", "a;b", "a\r\nb", "a\n", "1st", 'a"', "é"])
def test_a_reason_that_would_break_the_header_is_refused(reason: str) -> None:
    with pytest.raises(ValueError, match="is no token"):
        cache_status(Served("sql", reason))


def test_query_answers_depend_on_accept_and_are_asked_for_again() -> None:
    assert QUERY_HEADERS == {"Vary": "Accept", "Cache-Control": "no-cache"}


def test_equal_bytes_have_the_same_tag_and_others_another() -> None:
    assert etag(b"{}") == etag(bytes(bytearray(b"{}"))) != etag(b"{ }")
    assert etag(b"").startswith('"')


@pytest.mark.parametrize(
    ("sent", "unchanged"),
    [
        ([], False),
        ([b'"a"'], True),
        ([b'W/"a"'], True),
        ([b'"b"'], False),
        ([b'"b", "a"'], True),
        ([b'"b","a" , W/"c"'], True),
        ([b'"b"', b'"a"'], True),
        ([b"*"], True),
        ([b" * "], True),
        ([b"a"], False),
        ([b'"b, "a", c"'], False),
        ([b""], False),
        ([b'"a'], False),
        ([b', "a",,'], True),
        ([b' ,\t, W/"b" ,, "a" , '], True),
        ([b"", b'"a"', b""], True),
        ([b",,"], False),
        ([b'"b" "a"'], False),
        ([b', "a", b'], False),
        ([b'*, "b"'], False),
    ],
)
def test_who_has_the_same_is_told_so(sent: list[bytes], unchanged: bool) -> None:
    headers = [(b"If-None-Match", value) for value in sent]
    assert is_unchanged({"headers": headers}, '"a"') is unchanged


@pytest.mark.parametrize(
    ("tag", "sent", "unchanged"),
    [
        ('","', b'"x","y"', False),
        ('","', b'"x", ","', True),
        ('W/"a"', b'"a"', True),
        ('W/"a"', b'W/"a"', True),
        ('W/"a"', b'"W/"', False),
    ],
)
def test_tags_are_compared_whole_and_weakly(tag: str, sent: bytes, unchanged: bool) -> None:
    assert is_unchanged({"headers": [(b"if-none-match", sent)]}, tag) is unchanged


def test_a_list_of_tags_is_read_in_a_time_that_grows_with_its_length() -> None:
    # Where empty elements could be read in many ways, a refusal would take a time that doubles with each of them.
    for part in (b', "b"', b" ,", b'" ', b'"b",,  '):
        sent = part * 4000 + b"x"
        assert is_unchanged({"headers": [(b"if-none-match", sent)]}, '"a"') is False

"""Bodies are read up to a limit, strictly, and only as the media types that are understood."""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.errors import InvalidMessage
from diptych.http import (
    BadRequest,
    ClientDisconnected,
    Fields,
    PayloadTooLarge,
    UnsupportedMediaType,
    UnsupportedTransfer,
    parse_json,
    read_body,
    read_fields,
)
from diptych.http.asgi import Message, Scope
from diptych.http.reading import KEPT, WatchedReceive

JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded"}


class Client:
    """Sends a body in chunks; `None` is its going away."""

    def __init__(self, *chunks: bytes | None) -> None:
        self.chunks = list(chunks)
        self.sent = 0

    async def receive(self) -> Message:
        chunk = self.chunks[self.sent]
        self.sent += 1
        if chunk is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": chunk, "more_body": self.sent < len(self.chunks)}


def request(headers: dict[str, str] | Iterable[tuple[str, str]] = ()) -> Scope:
    pairs = headers.items() if isinstance(headers, dict) else headers
    return {"type": "http", "method": "POST", "headers": [(n.encode(), v.encode()) for n, v in pairs]}


async def test_a_body_arrives_whole() -> None:
    assert await read_body(request(), Client(b"ab", b"", b"c").receive, 3) == b"abc"
    assert await read_body(request(), Client(b"").receive, 0) == b""


async def test_form_fields_that_may_come_several_times_are_lists() -> None:
    body = b"tag=a&title=x&tag=&tag=b+c&title=y"
    fields = await read_fields(
        request(FORM), Client(body).receive, 100, keep_repeated=True, several=("tag", "absent")
    )
    assert fields.values == {"tag": ["a", "b c"], "title": "x"}
    assert fields.repeated == (("title", "was sent more than once"),)
    empty = await read_fields(request(FORM), Client(b"tag=").receive, 100, several=("tag",))
    assert empty.values == {"tag": []}
    sent = await read_fields(request(JSON), Client(b'{"tag": "a"}').receive, 100, several=("tag",))
    assert sent.values == {"tag": "a"}


async def test_a_message_without_a_body_is_an_empty_one() -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    assert await read_body(request(), receive, 3) == b""


@pytest.mark.parametrize("length", ["4", "9" * 18, "9" * 5000])
async def test_a_declared_length_is_refused_before_anything_is_read(length: str) -> None:
    client = Client(b"abcd")
    with pytest.raises(PayloadTooLarge) as refused:
        await read_body(request({"content-length": length}), client.receive, 3)
    assert client.sent == 0
    assert refused.value.max_bytes == 3
    assert refused.value.headers == {"Connection": "close"}


async def test_http_2_has_no_connection_header() -> None:
    with pytest.raises(PayloadTooLarge) as refused:
        await read_body({**request({"content-length": "4"}), "http_version": "2"}, Client().receive, 3)
    assert refused.value.headers == {}


async def test_an_undeclared_length_is_refused_at_the_first_chunk_too_many() -> None:
    client = Client(b"ab", b"cd", b"ef", b"gh")
    with pytest.raises(PayloadTooLarge):
        await read_body(request(), client.receive, 3)
    assert client.sent == 2


@pytest.mark.parametrize("length", ["-1", "x", "", "²", "1.0"])
async def test_a_length_that_is_no_number_is_a_bad_request(length: str) -> None:
    scope = {"type": "http", "headers": [(b"content-length", length.encode("latin-1"))]}
    with pytest.raises(BadRequest):
        await read_body(scope, Client(b"").receive, 3)


async def test_half_a_body_is_not_taken_for_a_whole_one() -> None:
    with pytest.raises(ClientDisconnected):
        await read_body(request(), Client(b'{"a":1}', None).receive, 100)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON",
        'application/json; charset="UTF-8"',
        "application/json;charset=utf8",
    ],
)
async def test_json_is_read(content_type: str) -> None:
    fields = await read_fields(
        request({"content-type": content_type}), Client(b'{"a": [1, null]}').receive, 100
    )
    assert fields == Fields({"a": [1, None]}, is_form=False)


async def test_a_form_is_read() -> None:
    fields = await read_fields(request(FORM), Client(b"title=AC%2FDC&isbn=").receive, 100)
    assert fields == Fields({"title": "AC/DC", "isbn": None}, is_form=True)


async def test_no_body_of_no_type_is_no_fields() -> None:
    assert await read_fields(request(), Client(b"").receive, 100) == Fields({}, is_form=False)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": ""},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/x-www-form-urlencoded; charset=utf-16"},
        {"content-type": "multipart/form-data; boundary=x"},
        {"content-type": "application/jsonx"},
        {"content-type": "application/json; charset =utf-16"},
        {"content-type": "application/json;charset= 'utf-8'"},
        [("content-type", "application/json"), ("content-type", "text/plain")],
    ],
)
async def test_other_types_are_refused_naming_those_that_work(headers: dict[str, str]) -> None:
    with pytest.raises(UnsupportedMediaType) as refused:
        await read_fields(request(headers), Client(b"{}").receive, 100)
    assert refused.value.headers == {"Accept": "application/json, application/x-www-form-urlencoded"}


@pytest.mark.parametrize(
    "codings", [[""], ["identity"], [" , Identity,,"], ["identity", ""], ["identity, identity"]]
)
async def test_no_coding_is_no_obstacle_however_it_is_said(codings: list[str]) -> None:
    headers = [("content-type", "application/json"), *(("content-encoding", coding) for coding in codings)]
    assert (await read_fields(request(headers), Client(b"{}").receive, 100)).values == {}


@pytest.mark.parametrize("coding", ["gzip", "identity, gzip", ",br", '"identity"'])
async def test_a_coding_is_refused_wherever_it_stands_in_the_list_naming_what_works(coding: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="compressed") as refused:
        await read_fields(request({**JSON, "content-encoding": coding}), Client(b"{}").receive, 100)
    assert refused.value.headers == {"Accept-Encoding": "identity"}


@pytest.mark.parametrize("body", [b"[]", b"1", b'"x"', b"null", b"true"])
async def test_json_that_is_no_object_is_a_fault_of_the_whole(body: bytes) -> None:
    with pytest.raises(InvalidMessage) as refused:
        await read_fields(request(JSON), Client(body).receive, 100)
    assert refused.value.faults == (("", "must be a JSON object"),)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"a":1,}',
        b"{'a':1}",
        b'{"a":1}x',
        b'{"a":NaN}',
        b'{"a":1e999}',
        b'{"a":' + b"1" * 5000 + b"}",
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"\\ud800":1}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        '{"a":1}'.encode("utf-16-le"),
        b'{"a":1,"b":2,"a":1}',
        b'{"changes":{"a":1,"\\u0061":2}}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_malformed_json_is_a_bad_request(body: bytes) -> None:
    with pytest.raises(BadRequest):
        parse_json(body)


async def test_a_form_field_sent_twice_is_refused_unless_it_is_asked_for() -> None:
    body = b"title=a&author=&title=b&author=c"
    with pytest.raises(InvalidMessage) as refused:
        await read_fields(request(FORM), Client(body).receive, 100)
    fields = await read_fields(request(FORM), Client(body).receive, 100, keep_repeated=True)
    assert fields.values == {"title": "a", "author": None}
    assert fields.repeated == refused.value.faults
    assert [fault.field for fault in fields.repeated] == ["title", "author"]


def test_a_repeated_name_is_named() -> None:
    with pytest.raises(BadRequest, match="'author' twice"):
        parse_json(b'{"title":"x","author":"y","author":"z"}')


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(values)
def test_what_is_well_formed_is_read_as_it_is(value: Any) -> None:
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


@given(st.binary())
def test_no_body_breaks_the_parser(body: bytes) -> None:
    with suppress(BadRequest):
        parse_json(body)


async def test_a_body_is_whole_or_in_chunks_and_nothing_else() -> None:
    assert await read_body(request({"transfer-encoding": "Chunked"}), Client(b"ab").receive, 3) == b"ab"
    for coding in ("gzip, chunked", "chunked, chunked", "gzip", "x"):
        with pytest.raises(UnsupportedTransfer) as refused:
            await read_body(request({"transfer-encoding": coding}), Client(b"ab").receive, 3)
        assert (refused.value.status, refused.value.headers) == (501, {"Connection": "close"})


async def test_a_body_that_was_read_before_is_what_was_kept_of_it_or_an_error() -> None:
    receive = WatchedReceive(Client(b"a", b"b").receive, "keep it")
    assert await read_body(request(), receive, 2) == b"ab"
    with pytest.raises(RuntimeError, match=r"^the body was read before, and is gone: keep it$"):
        await read_body(request(), receive, 2)
    begun = WatchedReceive(Client(b"a", b"b").receive, "keep it")
    await begun()
    with pytest.raises(RuntimeError):
        await read_body(request(), begun, 2)
    scope = {**request(), KEPT: lambda: b"ab"}
    assert await read_body(scope, receive, 2) == b"ab"
    with pytest.raises(PayloadTooLarge):
        await read_body(scope, receive, 1)
    assert await read_body({**request(), KEPT: lambda: None}, Client(b"ab").receive, 2) == b"ab"


async def test_half_a_body_of_chunks_may_have_a_malformed_one() -> None:
    with pytest.raises(ClientDisconnected, match="a chunk is malformed, or the client disconnected"):
        await read_body(request({"transfer-encoding": "chunked"}), Client(b"ab", None).receive, 3)

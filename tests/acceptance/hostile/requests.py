"""Requests that no well-meant client sends, made from a seed; and the rules for what is answered to them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from tests.acceptance.hostile.tables import (
    BODIES,
    HEADERS,
    HOSTS,
    METHODS,
    PATHS,
    QUERIES,
    ROUTES,
    TYPES,
    VERSIONS,
)

Headers = list[tuple[bytes, bytes]]


class Hostile(NamedTuple):
    """A request as it is sent, and what may come of it besides an answer by the usual rules.

    ``closes`` allows the server to close the connection without an answer, ``refuses`` a status of 501.
    """

    sent: bytes
    is_head: bool = False
    closes: bool = False
    refuses: bool = False


def _whole(body: bytes, _: random.Random) -> tuple[Headers, bytes]:
    return [(b"Content-Length", b"%d" % len(body))], body


def _chunked(body: bytes, random_: random.Random) -> tuple[Headers, bytes]:
    cut = random_.randrange(len(body) + 1)
    parts = [part for part in (body[:cut], body[cut:]) if part]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    return [(b"Transfer-Encoding", b"chunked")], chunks + b"0\r\n\r\n"


def _malformed_chunks(body: bytes, random_: random.Random) -> tuple[Headers, bytes]:
    bad = random_.choice(
        [b"zz\r\nabc\r\n", b"-1\r\n", b"ffffffffffffffffff\r\n", b"3\r\nabcdef\r\n", b"3;" + b"x" * 99_999]
    )
    return [(b"Transfer-Encoding", b"chunked")], bad


def _coded(body: bytes, random_: random.Random) -> tuple[Headers, bytes]:
    _, chunks = _chunked(body, random_)
    coding = random_.choice([b"gzip, chunked", b"x, chunked", b"chunked, chunked"])
    return [(b"Transfer-Encoding", coding)], chunks


def _contradicting(body: bytes, random_: random.Random) -> tuple[Headers, bytes]:
    value = random_.choice([b"+5", b"-1", b"0x5", b"5, 5", b"99999999999999999999", b"", b"1 2"])
    return [(b"Content-Length", value)], body


def _smuggled(body: bytes, random_: random.Random) -> tuple[Headers, bytes]:
    headers, chunks = _chunked(body, random_)
    return [(b"Content-Length", b"%d" % len(body)), *headers], chunks


def _compressed(body: bytes, random_: random.Random) -> tuple[Headers, bytes]:
    headers, sent = _whole(body, random_)
    return [(b"Content-Encoding", random_.choice([b"gzip", b"br", b"x", b"identity, gzip"])), *headers], sent


_FRAMINGS: tuple[Callable[[bytes, random.Random], tuple[Headers, bytes]], ...] = (
    *(_whole,) * 16, *(_chunked,) * 4, _malformed_chunks, _coded, _contradicting, _smuggled, _compressed,
)  # fmt: skip


def make(random_: random.Random) -> Hostile:
    """Returns the next request. It asks the server to close the connection: more may be sent than the request."""
    choose = random_.choice
    method, version = choose(METHODS), choose(VERSIONS)
    paths = ROUTES[method] if method in ROUTES and random_.random() < 0.7 else PATHS
    target = choose(paths) + (choose(QUERIES) if random_.random() < 0.4 else b"")
    headers: Headers = [(b"Host", host) for host in choose(HOSTS)]
    headers += [
        choose(HEADERS) for _ in range(choose([0, 0, 1, 1, 2, 3, 120 if random_.random() < 0.05 else 1]))
    ]
    body, framing = b"", None
    if method not in (b"GET", b"HEAD") or random_.random() < 0.1:
        framing = choose(_FRAMINGS)
        headers += [(b"Content-Type", value) for value in choose(TYPES)]
        framed, body = framing(choose(BODIES), random_)
        headers += framed
    headers.append((b"Connection", b"close"))
    head = b"".join(b"%b: %b\r\n" % pair for pair in headers)
    return Hostile(
        b"%b %b %b\r\n%b\r\n%b" % (method, target, version, head, body),
        is_head=method == b"HEAD",
        closes=method in (b"CONNECT", b"PRI"),
        refuses=framing is _coded,
    )


_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[^\r\n]*\r\n")
_BARE = frozenset({400, 414, 431})
"""Statuses that the server itself answers, without the application: with no body, and without headers of ours."""


def fault_of(hostile: Hostile, received: bytes) -> str | None:
    """Returns what is wrong with the answer; None if nothing is."""
    while received.startswith(b"HTTP/1.1 100 "):
        received = received.partition(b"\r\n\r\n")[2]
    if not received:
        return None if hostile.closes else "no answer"
    found = _STATUS.match(received)
    if found is None:
        return "no answer of HTTP"
    status = int(found[1])
    head, _, body = received[found.end() :].partition(b"\r\n\r\n")
    headers = {
        name.strip().lower(): value.strip()
        for name, _, value in (line.partition(b":") for line in head.split(b"\r\n"))
    }
    if status in _BARE and b"server" not in headers and not body:
        return None
    if status >= 500 and not (status == 501 and hostile.refuses):
        return f"status {status}"
    return _fault_of_ours(status, headers, b"" if hostile.is_head else body)


def _fault_of_ours(status: int, headers: Mapping[bytes, bytes], body: bytes) -> str | None:
    missing = [
        name for name in (b"x-content-type-options", b"cross-origin-resource-policy") if name not in headers
    ]
    if missing:
        return f"status {status} without {missing[0].decode()}"
    kind = headers.get(b"content-type", b"")
    if status < 400:
        return None
    if kind.startswith(b"text/html"):
        return None if b"content-security-policy" in headers else f"a page of {status} without a policy"
    if kind != b"application/problem+json":
        return f"status {status} as {kind.decode('latin-1')}"
    if body and json.loads(body[: int(headers.get(b"content-length", b"0"))])["status"] != status:
        return f"the problem of another status than {status}"
    return None

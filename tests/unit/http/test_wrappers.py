"""The wrappers around an application: security headers, HEAD, and the context of the request."""

from __future__ import annotations

from typing import Any

import pytest

from diptych.context import request_scope
from diptych.http import SECURITY_HEADERS, HeadAsGet, RequestContext, SecurityHeaders
from diptych.http.asgi import ASGIApp, Message, Receive, Scope, Send


class Site:
    """Answers with what it is given, and remembers the scope and the context it was called in."""

    def __init__(self, *messages: Message) -> None:
        self.messages = messages
        self.scope: Scope = {}
        self.context: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.context = scope, request_scope.get()
        for message in self.messages:
            await send(message)


def start(*headers: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": 200, "headers": headers}


def body(content: bytes, more: bool = False) -> Message:
    return {"type": "http.response.body", "body": content, "more_body": more}


async def call(app: ASGIApp, method: str = "GET", kind: str = "http") -> list[Message]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    await app({"type": kind, "method": method, "path": "/"}, receive, send)
    return sent


def headers_of(message: Message) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in message["headers"]}


async def test_every_response_gets_the_security_headers() -> None:
    sent = await call(SecurityHeaders(Site(start((b"content-type", b"text/html")), body(b"x"))))
    expected = {name.lower(): value for name, value in SECURITY_HEADERS.items()}
    assert headers_of(sent[0]) == {"content-type": "text/html", **expected}
    assert sent[1] == body(b"x")


@pytest.mark.parametrize("kind", [b"application/json", b"application/problem+json; charset=utf-8", None])
async def test_data_gets_those_that_do_not_concern_pages(kind: bytes | None) -> None:
    message = start((b"Content-Type", kind)) if kind else {**start(), "status": 304}
    sent = await call(
        SecurityHeaders(Site(message), {"X-Frame-Options": "SAMEORIGIN", "Strict-Transport-Security": "x"})
    )
    assert headers_of(sent[0]).keys() - {"Content-Type"} == {
        "x-content-type-options",
        "cross-origin-resource-policy",
        "x-frame-options",  # what was changed is on everything
        "strict-transport-security",
    }


def test_scripts_frames_and_foreign_targets_are_forbidden() -> None:
    policy = SECURITY_HEADERS["Content-Security-Policy"].split("; ")
    assert {"default-src 'none'", "form-action 'self'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(
        policy
    )
    assert not any(rule.startswith("script-src") or "unsafe" in rule for rule in policy)


async def test_what_the_application_set_stays() -> None:
    sent = await call(SecurityHeaders(Site(start((b"X-Frame-Options", b"SAMEORIGIN")))))
    assert [value for name, value in sent[0]["headers"] if name.lower() == b"x-frame-options"] == [
        b"SAMEORIGIN"
    ]


async def test_single_security_headers_can_be_changed_or_left_out() -> None:
    changes = {"content-security-policy": "default-src 'self'", "X-Frame-Options": None}
    found = headers_of((await call(SecurityHeaders(Site(start()), changes)))[0])
    assert found["content-security-policy"] == "default-src 'self'"
    assert "x-frame-options" not in found
    assert found["x-content-type-options"] == "nosniff"


async def test_head_runs_as_get_and_keeps_all_but_the_body() -> None:
    site = Site(start((b"content-length", b"2")), body(b"a", more=True), body(b"b"))
    sent = await call(HeadAsGet(site), "HEAD")
    assert site.scope["method"] == "GET"
    assert headers_of(sent[0]) == {"content-length": "2"}
    assert sent[1:] == [body(b"", more=True), body(b"")]


async def test_head_of_a_file_sends_no_file() -> None:
    sent = await call(HeadAsGet(Site(start(), {"type": "http.response.pathsend", "path": "/x"})), "HEAD")
    assert sent[1] == {"type": "http.response.body", "body": b""}


async def test_get_keeps_its_body() -> None:
    site = Site(start(), body(b"a"))
    assert (await call(HeadAsGet(site), "GET"))[1] == body(b"a")
    assert (await call(HeadAsGet(site), "POST"))[1] == body(b"a")
    assert site.scope["method"] == "POST"


@pytest.mark.parametrize(
    ("allow", "amended"), [(b"PATCH, GET", "GET, HEAD, PATCH"), (b"POST", "POST"), (b"", "")]
)
async def test_allow_tells_of_head(allow: bytes, amended: str) -> None:
    sent = await call(HeadAsGet(Site(start((b"Allow", allow)))))
    assert headers_of(sent[0]) == {"Allow": amended}


async def test_the_scope_is_known_during_the_request_only() -> None:
    site = Site()
    await call(RequestContext(site))
    assert site.context is site.scope
    assert request_scope.get() is None


async def test_the_scope_is_forgotten_after_a_failure() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await call(RequestContext(fails))
    assert request_scope.get() is None


@pytest.mark.parametrize("wrapper", [SecurityHeaders, HeadAsGet, RequestContext])
async def test_the_lifespan_passes_through(wrapper: Any) -> None:
    message = {"type": "lifespan.startup.complete"}
    site = Site(message)
    assert await call(wrapper(site), kind="lifespan") == [message]
    assert site.context is None

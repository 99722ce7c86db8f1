"""The correlation id of a request is the caller's, if it is fit to be written down."""

from __future__ import annotations

import pytest

from diptych.context import correlation_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ({}, None),
        ({"x-request-id": "abc-123"}, "abc-123"),
        ({"X-Request-Id": " abc "}, "abc"),
        ({"x-request-id": "~" * 128}, "~" * 128),
        ({"x-request-id": "~" * 129}, None),
        ({"x-request-id": ""}, None),
        ({"x-request-id": "two words"}, None),
        ({"x-request-id": "é"}, None),
        ({"x-request-id": "a\x7f"}, None),
        ({"traceparent": f"00-{TRACE}-{PARENT}-01"}, TRACE),
        ({"traceparent": f"cc-{TRACE}-{PARENT}-01-what-the-future-brings"}, TRACE),
        ({"traceparent": f"00-{TRACE}-{PARENT}-01-more"}, None),
        ({"traceparent": f"ff-{TRACE}-{PARENT}-01"}, None),
        ({"traceparent": f"00-{'0' * 32}-{PARENT}-01"}, None),
        ({"traceparent": f"00-{TRACE}-{'0' * 16}-01"}, None),
        ({"traceparent": f"00-{TRACE.upper()}-{PARENT}-01"}, None),
        ({"traceparent": "nonsense"}, None),
        ({"x-request-id": "mine", "traceparent": f"00-{TRACE}-{PARENT}-01"}, "mine"),
        ({"x-request-id": "not mine", "traceparent": f"00-{TRACE}-{PARENT}-01"}, TRACE),
    ],
)
def test_the_callers_id_is_taken_if_it_is_well_formed(headers: dict[str, str], found: str | None) -> None:
    scope = {"headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    assert correlation_id(scope) == found


def test_outside_a_request_there_is_none() -> None:
    assert correlation_id(None) is None
    assert correlation_id({"type": "http"}) is None

"""HTML goes to clients that like it better than JSON, which are browsers."""

from __future__ import annotations

import pytest

from diptych.http import prefers_html

CHROME = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "html"),
    [
        ([], False),
        ([""], False),
        (["*/*"], False),
        ([CHROME], True),
        (["text/html"], True),
        (["TEXT/HTML"], True),
        (["text/html; charset=utf-8"], True),
        (["application/xhtml+xml"], True),
        (["text/*"], True),
        (["application/json"], False),
        (["application/problem+json"], False),
        (["application/*"], False),
        (["text/html, application/json"], False),
        (["text/html, */*"], False),
        (["text/html, */*;q=0.9"], True),
        (["*/*, application/json;q=0.5, text/html;q=0.6"], True),
        (["*/*, application/json;q=0.5"], True),
        (["*/*;q=0.1, text/*;q=0.2"], True),
        (["application/json;q=0.2, text/html;q=0.1, text/*"], False),
        (["application/*;q=0.3, text/html;q=0.3"], False),
        (["text/html;q=0.001, application/json;q=0"], True),
        (["text/html;q=0"], False),
        (["text/html;q=0.5, text/html;q=0.1, application/json;q=0.3"], True),
        (["text/html; q=0.9 , application/json ; q=0.8"], True),
        (["text/html;Q=1, application/json;q=0.9"], True),
        (["application/json;q=0.9", "text/html"], True),
        (["text/html;q=nan, application/json;q=0.1"], False),
        (["text/html;q=2"], False),
        (["text/html;q=0.1234"], False),
        (["text/html;q="], False),
        (["nonsense,;,;;q=1,/"], False),
        ([", ,text/html,,"], True),
        (["", "text/html", ""], True),
        (['text/html;x="a,b;";q=0.1, application/json;q=0.5'], False),
        (['text/html;x="\\",text/plain";q=0.1, application/json;q=0.5'], False),
        (['application/json;q=0.1, text/html;x="'], True),
    ],
)
def test_the_better_liked_representation_is_sent(accept: list[str], html: bool) -> None:
    assert (
        prefers_html({"type": "http", "headers": [(b"accept", value.encode()) for value in accept]}) is html
    )

"""The pages of the documentation as answers: the document, the page that shows it, and its style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from diptych.http.answers import Answer, etag
from diptych.http.endpoints.compiled import Compiled
from diptych.http.openapi.document import document_of
from diptych.http.openapi.page import page_of_document

DOCUMENT, PAGE, STYLE = "/openapi.json", "/docs", "/docs.css"


def documentation(
    endpoints: Sequence[Compiled], title: str, version: str, description: str | None = None
) -> Mapping[str, Answer]:
    """Returns the answers of the documentation by their paths."""
    document = document_of(endpoints, title, version, description)
    page = page_of_document(document, STYLE.lstrip("/"), DOCUMENT.lstrip("/"))
    css = Path(__file__).with_name("docs.css").read_bytes()
    style = Answer(
        200, [(b"content-type", b"text/css; charset=utf-8"), (b"content-length", b"%d" % len(css))], css
    )
    answers = {DOCUMENT: Answer.json(document), PAGE: Answer.page(page), STYLE: style}
    return {path: _tagged(answer) for path, answer in answers.items()}


def _tagged(answer: Answer) -> Answer:
    headers = [(b"etag", etag(answer.body).encode()), (b"cache-control", b"no-cache")]
    return Answer(answer.status, [*answer.headers, *headers], answer.body)

"""What is loaded into Schemathesis: the count of requests, and the check that answers show what was done before.

Its own checks for that compare paths, and know that `DELETE /books/x` ends `GET /books/x`. Here it is any deletion of
which the document has a link to what was deleted, and any creation with a `Location`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import requests
import schemathesis

COUNT = Path(os.environ["API_REQUESTS"])
"""The file that gets a byte for each request."""

TIMEOUT_S = 120


@schemathesis.hook
def after_call(context: Any, case: Any, response: Any) -> None:
    """Counts."""
    _count()


def _count() -> None:
    with COUNT.open("ab") as file:
        file.write(b".")


@schemathesis.check
def shows_what_was_done(ctx: Any, response: Any, case: Any) -> None:
    """After a creation its `Location` is there; after a deletion nothing is there that the document links to."""
    if not 200 <= response.status_code < 300:
        return
    asked = urlsplit(response.request.url)
    root = f"{asked.scheme}://{asked.netloc}"
    location = response.headers.get("location", [""])[0]
    if location and response.status_code == 201:
        _expect(urljoin(root, location), (200, 405), case)  # 405: what is below it can only be changed
    if case.method.upper() != "DELETE":
        return
    for path in _links(case):
        if "{" not in path:
            _expect(root + path, (404,), case)


def _links(case: Any) -> list[str]:
    """The paths of the queries for what the case has deleted."""
    deleted, paths = case.operation.path, case.operation.schema.raw_schema["paths"]
    names = re.findall(r"\{(\w+)\}", deleted)
    found = []
    for path, operations in paths.items():
        same = re.findall(r"\{(\w+)\}", path) == names
        if "get" in operations and same and deleted.startswith(path):
            values = {name: quote(str(case.path_parameters[name]), safe="") for name in names}
            found.append(re.sub(r"\{(\w+)\}", lambda name: values[name[1]], path))  # noqa: B023
    return found


def _expect(url: str, statuses: tuple[int, ...], case: Any) -> None:
    answer = requests.get(url, timeout=TIMEOUT_S)
    _count()
    if answer.status_code not in statuses:
        raise AssertionError(f"after {case.method} {case.formatted_path}, {url} is {answer.status_code}")

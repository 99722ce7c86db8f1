"""Requests that Schemathesis makes from the OpenAPI document; `make api` makes many more."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any, ClassVar

import openapi_spec_validator
import pytest

from tests.acceptance.api.run import run
from tests.acceptance.serving import Catalogue, environment
from tests.servers import HOST, Server

SEED = 7
FAULTY = Path(__file__).parent / "api" / "faulty.py"


class FaultyServer(Server):
    """The application that loses what it is told to."""

    ready_line: ClassVar[str] = "Serving "

    def __init__(self, loses: str) -> None:
        super().__init__()
        self._loses = loses
        shutil.copy(FAULTY, self.directory / "faulty.py")

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """By diptych's own server."""
        options = ["--port", str(self.port), "--redis", "none"]
        return [sys.executable, "-m", "diptych.cli", "run", "faulty:app", *options]

    def run_as(self) -> dict[str, Any]:
        """With what it loses."""
        return {"env": environment(LOSES=self._loses)}


def test_the_document_is_openapi(books: Catalogue) -> None:
    answer = books.get("/openapi.json")
    openapi_spec_validator.validate(answer.json())
    assert books.get("/openapi.json", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_answers_are_as_the_document_says_and_show_what_was_done(books: Catalogue) -> None:
    phases = "coverage,fuzzing,stateful"
    result = run(books.server.url, seed=SEED, examples=6, phases=phases)
    assert result.is_well, result.report
    assert result.requests > 500


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("loses", "found"),
    [
        ("nothing", None),
        ("notes", "after POST /notes"),
        ("deletions", "after DELETE /notes"),
        ("fields", "Response violates schema"),
    ],
)
def test_what_an_application_loses_is_noticed(loses: str, found: str | None) -> None:
    with FaultyServer(loses) as server:
        result = run(server.url, seed=SEED, examples=20, phases="fuzzing,stateful")
    assert result.is_well is (found is None), result.report
    assert found is None or found in result.report

"""Errors become problem details that name every fault and no internals."""

from __future__ import annotations

import copy
import json
import logging
from typing import Any

import pytest
from msgspec import Struct

from diptych import Command, build, errors
from diptych.errors import Fault, InvalidMessage
from diptych.http import (
    BadRequest,
    ClientDisconnected,
    CrossSite,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    UnsupportedMediaType,
    problem_for,
)
from diptych.http.errors import status_problem

SECRET = "postgresql://user:hunter2@db/books"


def document(error: Exception) -> dict[str, Any]:
    decoded: dict[str, Any] = json.loads(problem_for(error).json())
    return decoded


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (BadRequest("the path is not UTF-8"), 400, "Bad Request"),
        (ClientDisconnected(), 400, "Bad Request"),
        (CrossSite(), 403, "Forbidden"),
        (NotFound(), 404, "Not Found"),
        (MethodNotAllowed(["POST"]), 405, "Method Not Allowed"),
        (UnsupportedMediaType("no", ["application/json"]), 415, "Unsupported Media Type"),
    ],
)
def test_http_errors_mean_what_their_status_means(error: Exception, status: int, title: str) -> None:
    assert document(error) == {"type": "about:blank", "status": status, "title": title, "detail": str(error)}


def test_a_body_too_long_is_413_and_says_how_much_is_read() -> None:
    problem = document(PayloadTooLarge(1048576))
    assert problem["status"] == 413
    assert "1048576" in problem["detail"]


@pytest.mark.parametrize(
    ("methods", "allow"),
    [
        (["GET", "PATCH"], "GET, HEAD, PATCH"),
        (["POST"], "POST"),
        (["HEAD", "GET", "GET"], "GET, HEAD"),
        ([], ""),
    ],
)
def test_405_names_the_methods_with_head_beside_get(methods: list[str], allow: str) -> None:
    assert problem_for(MethodNotAllowed(methods)).headers == {"Allow": allow}


def test_415_names_the_types_that_work() -> None:
    problem = problem_for(UnsupportedMediaType("no", ["application/json", "a/b"]))
    assert problem.headers == {"Accept": "application/json, a/b"}


FAULTS = [Fault("title", "must not be blank"), Fault("changes.a/b~c d", "is unknown"), Fault("", "must be")]


def test_every_fault_is_named_with_its_place() -> None:
    assert document(errors.InvalidMessage("AddBook", FAULTS)) == {
        "type": "urn:diptych:problem:invalid-fields",
        "title": "Some fields are wrong",
        "status": 422,
        "detail": "3 fields are wrong; see errors",
        "errors": [
            {"field": "title", "pointer": "#/title", "detail": "must not be blank"},
            {"field": "changes.a/b~c d", "pointer": "#/changes/a~1b~0c%20d", "detail": "is unknown"},
            {"field": "", "pointer": "#", "detail": "must be"},
        ],
    }


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_fields_of_a_request_without_a_body_are_parameters(method: str) -> None:
    problem = problem_for(errors.InvalidMessage("page", [Fault("after", "is no cursor"), FAULTS[2]]), method)
    assert [(one.field, one.pointer, one.parameter) for one in problem.errors] == [
        ("after", None, "after"),
        ("", None, None),
    ]


COLUMNS = [
    errors.InvalidValueError("Book", [Fault("title", "must be text"), Fault("a value", "does not fit")]),
    errors.DuplicateError("Book", ["title", "a value"]),
]


@pytest.mark.parametrize("error", COLUMNS)
@pytest.mark.parametrize(("method", "pointer"), [("", "#/title"), ("POST", "#/title"), ("DELETE", None)])
def test_a_column_has_a_place_only_where_a_field_of_the_body_may_have_its_name(
    error: Exception, method: str, pointer: str | None
) -> None:
    problem = problem_for(error, method)
    assert [(one.field, one.pointer, one.parameter) for one in problem.errors] == [
        ("title", pointer, None),
        ("a value", None, None),
    ]


def test_a_taken_value_is_409_and_says_which() -> None:
    assert document(errors.DuplicateError("Book", ["isbn"])) == {
        "type": "urn:diptych:problem:duplicate",
        "title": "Already taken",
        "status": 409,
        "detail": "this isbn is already taken; nothing was changed",
        "errors": [{"field": "isbn", "pointer": "#/isbn", "detail": "is already taken"}],
        "columns": ["isbn"],
    }


def test_a_taken_value_of_unknown_columns_is_409_too() -> None:
    problem = document(errors.DuplicateError("Book", []))
    assert problem["status"] == 409
    assert "errors" not in problem


def test_another_refused_constraint_is_409_without_what_the_database_said() -> None:
    problem = document(errors.ConstraintError("Book", ["author_id"], SECRET))
    assert (problem["status"], problem["type"]) == (409, "urn:diptych:problem:constraint")
    assert problem["columns"] == ["author_id"]
    assert SECRET not in json.dumps(problem)


@pytest.mark.parametrize(
    "error",
    [
        errors.UnavailableError(SECRET, 7),
        errors.DatabaseUnavailableError(SECRET, 7),
        errors.DatabaseBusyError(SECRET, 7),
        errors.ConflictError(SECRET, 7),
        errors.RedisUnavailableError(SECRET, 7),
        errors.RedisRefusedError(SECRET, 7),
    ],
)
def test_what_is_away_is_503_with_the_time_to_wait(error: Exception) -> None:
    problem = problem_for(error)
    assert problem.status == 503
    assert problem.headers == {"Retry-After": "7"}
    assert SECRET.encode() not in problem.json()
    assert b"headers" not in problem.json()


def test_a_failure_at_the_commit_says_that_the_change_may_be_there() -> None:
    problem = document(errors.DatabaseUnavailableError(SECRET, may_be_done=True))
    assert problem["status"] == 503
    assert problem["detail"] == (
        "the database failed at the commit: the change may be there or not; look before you try again"
    )


def test_the_time_to_wait_is_a_second_at_least() -> None:
    assert problem_for(errors.UnavailableError("", 0)).headers == {"Retry-After": "1"}


@pytest.mark.parametrize(
    "error",
    [RuntimeError(SECRET), errors.AmbiguousLookupError(SECRET, "x"), errors.WiringError([SECRET])],
)
def test_the_unforeseen_is_500_logged_and_not_shown(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR, "diptych.http"):
        problem = document(error)
    assert problem["status"] == 500
    assert SECRET not in json.dumps(problem)
    assert SECRET in caplog.text


def test_what_is_foreseen_is_not_logged_as_an_error(caplog: pytest.LogCaptureFixture) -> None:
    for error in (NotFound(), errors.InvalidMessage("AddBook", FAULTS), errors.DatabaseBusyError("x")):
        problem_for(error)
    assert not caplog.records


def test_a_status_that_has_no_name_is_a_problem_too() -> None:
    assert json.loads(status_problem(499).json()) == {"type": "about:blank", "title": "Error", "status": 499}


class Line(Struct):
    count: int


class Order(Command[None]):
    lines: dict[str, Line]


def test_a_pointer_has_the_steps_of_a_path_whatever_names_are_like() -> None:
    with pytest.raises(InvalidMessage) as caught:
        build(Order, {"lines": {"a.b": {"count": "x", "c.d": 1}, "": {}}})
    assert [error.pointer for error in problem_for(caught.value).errors] == [
        "#/lines/a.b/c.d",
        "#/lines/a.b/count",
        "#/lines//count",
    ]
    faults = caught.value.faults
    assert faults == (
        Fault("lines.a.b.c.d", "is not a known field"),
        Fault("lines.a.b.count", "must be a whole number"),
        Fault("lines..count", "is missing"),
    )
    copied = InvalidMessage("Order", copy.deepcopy(faults))
    assert problem_for(copied).errors == problem_for(caught.value).errors

"""The OpenAPI document of an application of FastAPI: completed, and with all that was in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from openapi_spec_validator import validate
from pydantic import BaseModel

from diptych import Diptych
from diptych.ext.fastapi import install, router
from tests.integration.http_suite.applications import running
from tests.integration.http_suite.site import ENDPOINTS, shelf


class Problem(BaseModel):
    """A problem of the application's own."""

    number: int


class ValidationError(BaseModel):
    mine: str


class Mail(BaseModel):
    text: str


class Refused(BaseModel):
    why: str


@pytest.fixture
def diptych(tmp_path: Path) -> Diptych:
    return shelf(f"sqlite:///{tmp_path / 'books.db'}")


def document_of(diptych: Diptych, add: Callable[[FastAPI], None]) -> dict[str, Any]:
    app = FastAPI()
    install(app, diptych)
    add(app)
    document = app.openapi()
    validate(document)
    assert dangling(document) == set()
    return document


def dangling(document: dict[str, Any]) -> set[str]:
    found, waiting = set[str](), [document]
    while waiting:
        part: Any = waiting.pop()
        if isinstance(part, dict):
            found |= {value for name, value in part.items() if name == "$ref" and isinstance(value, str)}
            waiting += part.values()
        elif isinstance(part, list):
            waiting += part
    return {one for one in found if one.rpartition("/")[2] not in document["components"]["schemas"]}


def test_webhooks_and_callbacks_keep_the_schemas_that_they_refer_to(diptych: Diptych):
    callbacks = APIRouter()

    @callbacks.post("{$request.body#/url}")
    def sent(body: Mail) -> None: ...

    def add(app: FastAPI) -> None:
        @app.webhooks.post("mail")
        def mail(body: Mail) -> None: ...

        app.include_router(router(ENDPOINTS[1:2], callbacks=callbacks.routes))

    document = document_of(diptych, add)
    assert "HTTPValidationError" in document["components"]["schemas"]
    assert "sent" in str(document["paths"]["/books"]["post"]["callbacks"])


def test_schemas_of_the_applications_own_stay_whatever_their_names_are(diptych: Diptych):
    def add(app: FastAPI) -> None:
        @app.post("/own")
        def own(body: Mail) -> Problem | ValidationError:
            return Problem(number=1)

        app.include_router(router(ENDPOINTS))

    document = document_of(diptych, add)
    schemas = document["components"]["schemas"]
    assert list(schemas["Problem"]["properties"]) == ["number"]
    assert "ValidationError" in schemas  # FastAPI takes the name for its own, and the route refers to it
    for path in ("/own", "/books"):
        refused = document["paths"][path]["post"]["responses"]["422"]["content"]["application/problem+json"]
        assert refused["schema"] == {"$ref": "#/components/schemas/Problem_"}
    assert "detail" in schemas["Problem_"]["properties"]


def test_answers_that_a_router_tells_of_stay(diptych: Diptych):
    def add(app: FastAPI) -> None:
        made = router(ENDPOINTS, responses={401: {"model": Refused, "description": "Who are you?"}})
        app.include_router(made)

    document = document_of(diptych, add)
    responses = document["paths"]["/books/{title}"]["get"]["responses"]
    assert responses["401"]["description"] == "Who are you?"
    assert set(responses) == {"200", "304", "400", "401", "404", "422", "500", "503"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


async def test_a_function_that_takes_the_place_of_openapi_later_is_completed_too(diptych: Diptych):
    app = FastAPI()
    install(app, diptych, ENDPOINTS)

    def custom() -> dict[str, Any]:
        if not app.openapi_schema:
            app.openapi_schema = get_openapi(title="Own", version="7", routes=app.routes)
        return app.openapi_schema

    app.openapi = custom  # type: ignore[method-assign]
    async with running(app) as client:
        document = (await client.get("/openapi.json")).json()
        assert document["info"]["title"] == "Own"
        assert "requestBody" in document["paths"]["/books"]["post"]
        assert (await client.get("/openapi.json")).json() == document


async def test_a_function_around_the_completed_document_changes_nothing_else(diptych: Diptych):
    app = FastAPI()
    app.add_api_route("/other", lambda: [], response_model=list[Problem])
    install(app, diptych, ENDPOINTS)
    plain, own = app.openapi(), app.openapi
    app.openapi = lambda: {**own(), "x-own": True}  # type: ignore[method-assign]
    async with running(app) as client:
        assert (await client.get("/openapi.json")).json() == {**plain, "x-own": True}


def test_each_operation_has_an_id_of_its_own(diptych: Diptych):
    def add(app: FastAPI) -> None:
        shared = router(ENDPOINTS)
        for prefix in ("/v1", "/v2", "/v3"):
            app.include_router(shared, prefix=prefix)

        @app.get("/mine", operation_id="AddBook")
        async def mine() -> int:
            return 1

    document = document_of(diptych, add)  # which tells of ids that are there twice
    ids = [document["paths"][f"/v{n}/books"]["get"]["operationId"] for n in (1, 2, 3)]
    assert ids == ["ListBooks", "ListBooksByGet", "ListBooks2"]
    assert document["paths"]["/mine"]["get"]["operationId"] == "AddBook"
    assert document["paths"]["/v1/books"]["post"]["operationId"] == "AddBookByPost"


def test_no_link_leads_to_an_operation_that_is_not_shown(diptych: Diptych):
    def add(app: FastAPI) -> None:
        app.include_router(router(ENDPOINTS[:2]))
        app.include_router(router(ENDPOINTS[2:]), include_in_schema=False)

    document = document_of(diptych, add)
    assert list(document["paths"]) == ["/books"]
    assert "links" not in document["paths"]["/books"]["post"]["responses"]["201"]

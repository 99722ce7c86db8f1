"""``--app`` of the commands: the Diptych in an application of any framework, and in wrappers around it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from diptych.cli.target import load_diptych

DIPTYCH = [sys.executable, "-m", "diptych.cli"]

SHOP = """
    from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
    from diptych import ConfigService, Diptych

    class Base(DeclarativeBase): ...

    class Product(Base):
        __tablename__ = "products"
        id: Mapped[int] = mapped_column(primary_key=True)

    def made(name):
        return Diptych(ConfigService(database_url=f"{name}.db"), models=Base, handlers=[])
"""

FASTAPI = """
    import contextlib, functools
    from fastapi import FastAPI
    from fastapi.middleware.cors import CORSMiddleware
    from starlette.applications import Starlette
    from diptych.ext.fastapi import install
    from shop import made

    stated = FastAPI()
    install(stated, made("shop"))
    wrapped = CORSMiddleware(CORSMiddleware(stated))

    async def by_name(scope, receive, send):
        await stated(scope, receive, send)

    def timed(app):
        async def inner(scope, receive, send):
            await app(scope, receive, send)
        return inner

    by_closure = timed(timed(stated))
    partly = functools.partial(by_name)
    mounting = Starlette()
    mounting.mount("/shop", stated)

    shop = made("shop")

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with shop:
            yield

    living = FastAPI(lifespan=lifespan)
    living_too = Starlette(lifespan=lifespan)

    def make():
        return living

    @living.get("/")
    async def home(): ...
"""

LITESTAR = """
    from litestar import Litestar
    from diptych.ext.litestar import DiptychPlugin, asgi_app
    from diptych.http import SecurityHeaders
    from shop import made

    site = Litestar([], plugins=[DiptychPlugin(made("shop"))], openapi_config=None)
    served = asgi_app(site)
    wrapped = SecurityHeaders(served)
    alone = asgi_app(Litestar([], openapi_config=None))
"""

WRONG = """
    import contextlib
    from starlette.applications import Starlette
    from shop import made

    shop, archive = made("shop"), made("archive")

    @contextlib.asynccontextmanager
    async def lifespan(app):
        async with shop, archive:
            yield

    both = Starlette(lifespan=lifespan)
    neither = Starlette()
    nothing = {"shop": shop}
"""


ENDING = """
    import sys
    from shop import made

    shop = made("shop")
    sys.exit(0)
"""

LOUD = """
    import logging, sys
    from shop import made

    print("loud")
    logging.basicConfig(stream=sys.stdout, level="INFO", format="%(message)s")
    logging.info("louder")

    def make():
        print("loudest")
        return made("shop")

    def ending():
        raise SystemExit

    async def later():
        return made("shop")

    deferred = lambda: later()
"""


APPLICATIONS = {
    "shop": SHOP,
    "fast": FASTAPI,
    "lite": LITESTAR,
    "wrong": WRONG,
    "ending": ENDING,
    "loud": LOUD,
}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the applications."""
    for name, text in APPLICATIONS.items():
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def status(target: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [*DIPTYCH, "status", "--json", "--app", target, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "target",
    [
        *("fast:stated", "fast:wrapped", "fast:by_name", "fast:by_closure", "fast:partly", "fast:mounting"),
        *("fast:shop", "fast:living", "fast:living_too", "fast:make"),
        *("lite:site", "lite:served", "lite:wrapped"),
    ],
)
def test_the_diptych_of_an_application_is_found(target: str, monkeypatch: pytest.MonkeyPatch, here: Path):
    monkeypatch.syspath_prepend(here)
    try:
        assert load_diptych(target, factory=False).config.get("DATABASE_URL") == "shop.db"
    finally:
        for name in APPLICATIONS:
            sys.modules.pop(name, None)


@pytest.mark.parametrize("target", ["fast:wrapped", "lite:site", "fast:make"])
def test_a_command_takes_an_application(target: str, here: Path):
    found: dict[str, Any] = json.loads(status(target).stdout)
    assert found["sql"]["address"] == str(here / "shop.db")


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (
            "wrong:both",
            'there are 2 Diptychs in "wrong:both": name the one that is meant, such as "wrong:shop" or',
        ),
        (
            "wrong:neither",
            'there is no Diptych in "wrong:neither", which is a value of type Starlette: name "wrong',
        ),
        (
            "wrong:nothing",
            'there is no Diptych in "wrong:nothing", which is a value of type dict: name "wrong:shop"',
        ),
        (
            "lite:alone",
            'there is no Diptych in "lite:alone", which is a value of type _Served: name a Diptych, or',
        ),
    ],
)
def test_none_and_several_are_told_with_what_to_name_instead(target: str, problem: str):
    done = status(target)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"Error: {problem}")
    assert len(done.stderr.splitlines()) == 1


def test_every_command_of_an_application_takes_one_of_a_framework():
    assert status("fast:stated").returncode == 1  # there is no file yet
    for command in (["migrate"], ["check"], ["log", "tail"], ["status"], ["uninstall", "--sql"]):
        done = subprocess.run([*DIPTYCH, *command, "--app", "fast:wrapped"], capture_output=True, text=True)
        if command == ["migrate"]:
            assert "diptych's tables are as they should be" in done.stdout
            # The application makes its own.
            program = (
                "import asyncio, fast\nasync def main():\n async with fast.shop: pass\nasyncio.run(main())"
            )
            subprocess.run([sys.executable, "-c", program], check=True)
        assert done.returncode == 0, done.stderr
    for command in (["verify"], ["rebuild", "Books"]):
        done = subprocess.run([*DIPTYCH, *command, "--app", "lite:site"], capture_output=True, text=True)
        assert done.returncode == 2
        assert "REDIS_URL: is not set" in done.stderr or 'there is no read model "Books"' in done.stderr


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, **settings}
    return subprocess.run([*DIPTYCH, *arguments], capture_output=True, text=True, timeout=60, env=variables)


@pytest.mark.parametrize(
    "command", [["status"], ["check"], ["verify"], ["log", "tail"], ["rebuild", "Books"]]
)
def test_an_application_that_ends_the_process_is_an_error(command: list[str], here: Path):
    """It would look as if all were in order."""
    done = run(*command, "--app", "ending:shop")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f'Error: "ending:shop" ends the process while it is loaded ({here / "ending.py"}, line 6: sys.exit(0)): '
        "a module must be importable without that\n"
    )
    assert run(*command, "--app", "loud:ending").returncode == 2


def test_what_an_application_writes_while_it_is_loaded_is_not_in_the_answer():
    done = run("status", "--json", "--app", "loud:make")
    assert json.loads(done.stdout)["in_order"] is False
    assert done.stderr.splitlines() == ["loud", "louder", "loudest"]


@pytest.mark.parametrize("target", ["loud:later", "loud:deferred"])
@pytest.mark.parametrize("command", [["status", "--app"], ["run", "--port", "0"]])
def test_a_factory_that_is_async_is_refused(target: str, command: list[str]):
    done = run(*command, target, "--factory")
    assert done.returncode == 2
    assert f'"{target}" must not be async: nothing awaits it' in done.stderr
    assert "never awaited" not in done.stderr


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["status"], 1),
        (["log", "tail"], 1),
        (["log", "show", "1"], 1),
        (["check"], 2),
        (["verify"], 2),
        (["migrate", "--sql"], 1),
        (["uninstall", "--sql"], 1),
        (["uninstall"], 1),
    ],
)
def test_a_file_that_is_not_there_is_said_and_not_made(command: list[str], code: int, here: Path):
    done = run(*command, "--app", "fast:wrapped", DIPTYCH_REDIS_URL="redis://127.0.0.1:1/0")
    assert done.returncode == code
    assert f"there is no file {here / 'shop.db'}: start the application first" in done.stdout + done.stderr
    assert not (here / "shop.db").exists()

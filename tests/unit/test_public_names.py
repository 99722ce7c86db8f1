"""The public names: those of `diptych.__all__`, and that they are there without the packages of any extra."""

from __future__ import annotations

import importlib
import subprocess
import sys
from textwrap import dedent

import pytest

import diptych

EXTRAS = (
    "redis",
    "hiredis",
    "aiosqlite",
    "asyncpg",
    "fastapi",
    "starlette",
    "pydantic",
    "litestar",
    "jinja2",
    "granian",
    "click",
    "rich",
    "rich_click",
)

PUBLIC = """
    AmbiguousLookupError Command CommandOf ConfigService ConfigurationError ConflictError ConstraintError
    DatabaseBusyError DatabaseUnavailableError DifferentLoopError Diptych DiptychError Document DuplicateError Event
    Fault Health InvalidMessage InvalidValueError Message MissingExtraError NotStartedError ORMService Page PageOf
    Query QueryOf ReadModel RebuildFailedError RedisRefusedError RedisService RedisUnavailableError Rule SchemaError
    SchemaVersionError Served StaleVersionError Statistics UnavailableError UnitOfWorkError UnknownColumnError
    UnreadableRowError UnsupportedFilterError WiringError average between build by code_point_text computed
    configure_logging count each field join many maximum minimum one starts_with total
"""


def test_the_public_names_are_these():
    """A name that is added here is a promise; one that is missing breaks somebody's application."""
    assert diptych.__all__ == PUBLIC.split()


@pytest.mark.parametrize("name", ["diptych", "diptych.http"])
def test_every_public_name_is_there_and_they_are_sorted(name: str):
    module = importlib.import_module(name)
    names = list(module.__all__)
    assert len(set(names)) == len(names)
    groups = (str.isupper, lambda n: n[0].isupper() and not n.isupper(), lambda n: n[0].islower())
    assert names == [n for group in groups for n in sorted(filter(group, names))]
    for public in names:
        assert getattr(module, public) is not None


def test_what_is_imported_from_diptych_alone_is_public():
    namespace: dict[str, object] = {}
    exec("from diptych import *", namespace)  # noqa: S102
    assert set(diptych.__all__) == namespace.keys() - {"__builtins__"}


def test_every_public_error_is_a_diptych_error():
    errors = [getattr(diptych, name) for name in diptych.__all__ if name.endswith("Error")]
    assert all(issubclass(error, diptych.DiptychError) for error in [*errors, diptych.InvalidMessage])


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'diptych' has no attribute 'Diptichon'"):
        diptych.Diptichon  # noqa: B018


def run_without(*packages: str, script: str) -> str:
    """What a Python in which these packages can't be imported writes when it runs the script."""
    prelude = f"""
        import asyncio, sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {packages!r}:
                    raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

        sys.meta_path.insert(0, Blocker())
    """
    program = dedent(prelude) + dedent(script)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_diptych_is_imported_without_the_packages_of_any_extra():
    """Messages, the bus and the declarations of read models need nothing but the core."""
    shown = run_without(
        *EXTRAS,
        script=f"""
            import diptych
            missing = [name for name in diptych.__all__ if name != "RedisService" and not hasattr(diptych, name)]
            import diptych.http
            assert not missing, missing
            class Add(diptych.Command[int]):
                title: str
            print(diptych.build(Add, {{"title": "T"}}))
            print(sorted(set(sys.modules) & set({EXTRAS!r})))
        """,
    )
    assert shown == "Add(title='T')\n[]\n"


def test_diptych_imports_nothing_that_it_may_not_need():
    """Redis, web frameworks and drivers are imported when they are used: a start pays for what it uses."""
    shown = run_without(
        script=f"import diptych, diptych.http\nprint(sorted(set(sys.modules) & set({EXTRAS!r})))"
    )
    assert shown == "[]\n"


def needs(key: str, extra: str, package: str) -> str:
    return f'{key}: needs the package "{package}", which is not installed: install diptych with the extra "{extra}"\n'


@pytest.mark.parametrize(
    ("package", "url", "extra"),
    [("aiosqlite", "x.db", "sqlite"), ("asyncpg", "postgresql://u:secret@h/d", "postgresql")],
)
def test_a_database_whose_driver_is_missing_names_the_extra(package: str, url: str, extra: str):
    shown = run_without(
        package,
        script=f"""
            from diptych import ConfigService, MissingExtraError, ORMService
            try:
                asyncio.run(ORMService(ConfigService(environ={{}}, DATABASE_URL={url!r})).init())
            except MissingExtraError as error:
                print(error)
                assert error.extra == {extra!r} and error.key == "DATABASE_URL"
        """,
    )
    assert shown == needs("DATABASE_URL", extra, package)


def test_redis_without_its_package_names_the_extra(tmp_path):
    shown = run_without(
        "redis",
        script=f"""
            from sqlalchemy.orm import DeclarativeBase
            from diptych import ConfigService, Diptych, MissingExtraError
            class Base(DeclarativeBase):
                pass
            database = {str(tmp_path / "x.db")!r}
            config = ConfigService(environ={{}}, REDIS_URL="redis://localhost", DATABASE_URL=database)
            try:
                asyncio.run(Diptych(config, models=Base, handlers=[]).start())
            except MissingExtraError as error:
                print(error)
            try:
                from diptych import RedisService
            except MissingExtraError as error:
                print(error)
        """,
    )
    assert shown == needs("REDIS_URL", "redis", "redis") * 2


def test_an_application_without_redis_runs_without_its_package(tmp_path):
    shown = run_without(
        "redis",
        "asyncpg",
        "litestar",
        "granian",
        "click",
        script=f"""
            from sqlalchemy.orm import DeclarativeBase
            from diptych import ConfigService, Diptych
            class Base(DeclarativeBase):
                pass
            async def main():
                async with Diptych(ConfigService(environ={{}}, DATABASE_URL={str(tmp_path / "x.db")!r}),
                                   models=Base, handlers=[]) as app:
                    print((await app.health()).status)
            asyncio.run(main())
        """,
    )
    assert shown == "ok\n"


@pytest.mark.parametrize("package", ["fastapi", "starlette"])
def test_fastapi_and_starlette_without_their_packages_name_the_extra(package: str):
    shown = run_without(
        package,
        script=f"""
            from diptych import MissingExtraError
            try:
                import diptych.ext.{package}
            except MissingExtraError as error:
                print(error)
        """,
    )
    assert shown == needs(f"diptych.ext.{package}", "fastapi", package)


def test_litestar_without_its_package_names_the_extra():
    shown = run_without(
        "litestar",
        script="""
            from diptych import MissingExtraError
            try:
                import diptych.ext.litestar
            except MissingExtraError as error:
                print(error)
        """,
    )
    assert shown == needs("diptych.ext.litestar", "litestar", "litestar")


def test_the_command_without_its_package_names_the_extra():
    shown = run_without(
        "rich_click",
        script="""
            from diptych.cli import main
            try:
                main()
            except SystemExit as error:
                print(error.code)
        """,
    )
    assert shown == "Error: " + needs("the command diptych", "cli", "rich_click")

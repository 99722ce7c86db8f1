"""The Alembic project of docs/how-to/migrations.md, run as the page says."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from diptych import Diptych, SchemaError
from tests.catalogue import answered_by, eventually
from tests.programs import Foreign

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "migrations.md"


@pytest.fixture
def project(tmp_path: Path, database_url: str, valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files of the page in a directory, which is the present one, with the page's settings."""
    for name in [name for name in os.environ if name.startswith("DIPTYCH_")]:
        monkeypatch.delenv(name)
    blocks = re.findall(
        r"^```\w+ file\n# (\S+)\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    assert len(blocks) == 5
    for path, text in blocks:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for name, value in {
        "DATABASE_URL": database_url,
        "REDIS_URL": valkey.url,
        "CREATE_TABLES": "false",
        "LEASE_MS": "400",
        "REDIS_QUERY_TIMEOUT_MS": "2000",
    }.items():
        monkeypatch.setenv(f"DIPTYCH_{name}", value)
    yield tmp_path
    sys.modules.pop("shop", None)


@pytest.fixture
async def owner(database_url: str) -> AsyncIterator[Foreign]:
    program = Foreign(database_url)
    yield program
    await program.close()


async def run(*command: str) -> str:
    """Returns what a command of the page writes; it has to succeed."""
    return await asyncio.to_thread(_run, command)


def _run(command: tuple[str, ...]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def test_the_project_of_the_page_lives_beside_its_migrations(project: Path, owner: Foreign):
    shop: Diptych = importlib.import_module("shop").shop
    with pytest.raises(SchemaError, match=r"the table products \(Product\) is not there"):
        await shop.start()
    await run("alembic", "upgrade", "0001")
    await owner.runs("INSERT INTO products (sku, name, in_stock) VALUES ('A', 'Lamp', 1)")
    async with shop:
        await answered_by(shop, "redis")
        await run("alembic", "upgrade", "head")
        await sees(shop, "LAMP")
        assert await run("alembic", "check") == "No new upgrade operations detected.\n"
        await owner.runs("UPDATE products SET name = 'Torch' WHERE sku = 'A'")
        await sees(shop, "Torch")
        await run("alembic", "downgrade", "0001")
        await sees(shop, "torch")
        await answered_by(shop, "redis")
    await run("alembic", "upgrade", "head")
    assert "uninstall" not in await run("diptych.cli", "migrate", "--app", "shop:shop", "--sql")
    await run("diptych.cli", "uninstall", "--app", "shop:shop")
    assert await run("alembic", "check") == "No new upgrade operations detected.\n"
    assert [tuple(row) for row in await owner.rows("SELECT sku, name, in_stock FROM products")] == [
        ("A", "TORCH", 1)
    ]


async def sees(shop: Diptych, name: str) -> None:
    """Waits until Redis answers with this name of the product."""
    query = importlib.import_module("shop").GetProduct("A")

    async def does() -> bool:
        document = await shop.ask(query)
        found = document.decode()
        return document.served.store == "redis" and found is not None and found.name == name

    await eventually(does, f"Redis answers with {name}")

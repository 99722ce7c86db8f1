"""The example under examples/adopt, as it was and with its patch, and the page that tells of it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from examples.adopt.__main__ import HERE, environment, lay_out
from tests.catalogue import eventually
from tests.programs import Foreign
from tests.servers import HOST, RedisServer, free_port

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "adopt.md"
LAMP = {"name": "Lamp", "price": "12.50", "supplier": "Lux"}

each_state = pytest.mark.parametrize("state", ["before", "after"])


def changed_lines() -> list[str]:
    """The lines that the patch adds or takes away, empty ones too, without their sign."""
    lines = (HERE / "adopt.patch").read_text("utf-8").splitlines()
    return [line[1:] for line in lines if re.match(r"[+-](?!-- |\+\+ )", line)]


def run(shop: Path, settings: dict[str, str], *command: str) -> str:
    """Runs a command of the shop, which has to succeed; returns what it writes."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=shop,
        env=settings,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@contextlib.asynccontextmanager
async def served(shop: Path, settings: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """The shop, served as its README says."""
    port = free_port()
    command = [sys.executable, "-m", "uvicorn", "shop.main:app", "--port", str(port)]
    process = await asyncio.create_subprocess_exec(*command, cwd=shop, env=settings)
    try:
        async with httpx.AsyncClient(base_url=f"http://{HOST}:{port}") as client:

            async def answers() -> bool:
                assert process.returncode is None
                try:
                    return (await client.get("/products")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, "the shop answers")
            yield client
    finally:
        process.terminate()
        await process.wait()


def test_the_diff_has_less_than_40_lines():
    assert 20 < len(changed_lines()) < 40


def test_the_page_shows_every_line_of_the_diff():
    page = PAGE.read_text("utf-8")
    assert [line for line in changed_lines() if line.strip() not in page] == []


@each_state
def test_its_own_tests_pass(state: str, tmp_path: Path, postgres_url: str, valkey: RedisServer):
    shop, settings = lay_out(state, tmp_path), environment(postgres_url, valkey.url)
    run(shop, settings, "alembic", "upgrade", "head")
    assert re.search(r"^5 passed", run(shop, settings, "pytest", "-q", "-p", "no:valkey"), re.MULTILINE)


async def test_one_page_comes_from_redis_and_the_rest_is_as_it_was(
    tmp_path: Path, postgres_url: str, valkey: RedisServer
):
    bodies = {}
    settings = environment(postgres_url, valkey.url)
    foreign = Foreign(postgres_url)
    for state in ("before", "after"):
        shop = lay_out(state, tmp_path / state)
        await asyncio.to_thread(run, shop, settings, "alembic", "upgrade", "head")
        async with served(shop, settings) as client:
            if state == "before":
                assert (await client.post("/products", json=LAMP)).headers["Location"].endswith("/products/1")

            async def is_from_redis(client: httpx.AsyncClient = client) -> bool:
                page = await client.get("/products/1")
                return bool(page.headers.get("Cache-Status") == "diptych; hit")

            if state == "after":
                await eventually(is_from_redis, "Redis answers")
                await is_fresh_after_each_change(client)
                await is_renamed_by_others(client, foreign)
            bodies[state] = [(await client.get(path)).content for path in ("/products/1", "/products")]
        check = await asyncio.to_thread(run, shop, settings, "alembic", "check")
        assert check == "No new upgrade operations detected.\n"
    await foreign.close()
    assert bodies["before"] == bodies["after"]


async def is_fresh_after_each_change(client: httpx.AsyncClient) -> None:
    """The page shows what a session of the shop has written as soon as the request is answered."""
    for count in [*range(30), None]:
        changed = LAMP if count is None else {**LAMP, "price": f"{count}.25"}
        assert (await client.put("/products/1", json=changed)).status_code == 200
        page = await client.get("/products/1")
        assert (page.json(), page.headers["Cache-Status"]) == (changed, "diptych; hit")


async def is_renamed_by_others(client: httpx.AsyncClient, foreign: Foreign) -> None:
    """The page shows, from Redis, what a program of its own does to a supplier."""
    for name in ("Lumen", "Lux"):
        await foreign.runs(f"UPDATE suppliers SET name = '{name}'")

        async def shows(name: str = name) -> bool:
            page = await client.get("/products/1")
            return page.headers["Cache-Status"] == "diptych; hit" and bool(page.json()["supplier"] == name)

        await eventually(shows, f"the page says {name}")


def wait_for(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    """Returns when the shop answers; its servers begin with it."""
    while True:
        assert process.poll() is None
        with contextlib.suppress(httpx.TransportError):
            client.get("/products").raise_for_status()
            return
        time.sleep(0.1)


@each_state
def test_its_command_serves_it(state: str):
    port = str(free_port())
    command = [sys.executable, "-m", "examples.adopt", state]
    process = subprocess.Popen(command, cwd=HERE.parents[1], env={**os.environ, "PORT": port})
    try:
        with httpx.Client(base_url=f"http://{HOST}:{port}") as client:
            wait_for(client, process)
            added = client.post("/products", json=LAMP)
            page = client.get(added.headers["Location"])
            assert page.json() == LAMP
            assert ("Cache-Status" in page.headers) == (state == "after")
    finally:
        process.terminate()
        process.wait(timeout=30)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{HOST}:{port}/products")

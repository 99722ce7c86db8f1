"""The file of an SQLite database: who may read it, and where it may be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from diptych import ConfigService, Diptych
from diptych.errors import ConfigurationError
from tests.books import AddBook, create_books


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o777


def application(path: Path) -> Diptych:
    return create_books(ConfigService(environ={}, database_url=str(path)))


def modes_in(directory: Path) -> dict[str, int]:
    return {path.name: mode_of(path) for path in directory.iterdir()}


async def test_only_its_owner_can_read_a_file_that_is_made_and_what_lies_beside_it(tmp_path: Path):
    before = os.umask(0o022)
    try:
        async with application(tmp_path / "shop.db") as app:
            await app.execute(AddBook(title="Dune", author="A"))
            modes = modes_in(tmp_path)
    finally:
        os.umask(before)
    assert modes == {"shop.db": 0o600, "shop.db-wal": 0o600, "shop.db-shm": 0o600}


async def test_a_file_that_is_there_keeps_its_mode(tmp_path: Path):
    path = tmp_path / "shop.db"
    path.touch()
    path.chmod(0o660)
    async with application(path) as app:
        await app.execute(AddBook(title="Dune", author="A"))
        assert set(modes_in(tmp_path).values()) == {0o660}


async def test_a_link_to_a_file_that_is_not_there_yet_is_followed(tmp_path: Path):
    (tmp_path / "link.db").symlink_to("meant.db")
    async with application(tmp_path / "link.db") as app:
        await app.execute(AddBook(title="Dune", author="A"))
    assert mode_of(tmp_path / "meant.db") == 0o600


@pytest.mark.parametrize("target", ["away/shop.db", "/nowhere/at/all/shop.db", "shop.db"])
async def test_a_link_that_leads_nowhere_is_told_with_its_path(tmp_path: Path, target: str):
    link = tmp_path / "shop.db"
    link.symlink_to(target)
    with pytest.raises(ConfigurationError, match=f"{link} is a symbolic link to {target}, where no file can"):
        async with application(link):
            pass

"""The page on search: what it shows runs on both databases, and finds what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_docs import ROOT, environment, text_of, write_blocks
from tests.programs import Foreign

PAGE = ROOT / "docs/how-to/search.md"


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^ *```{kind}\n(.*?)^ *```", text_of(PAGE), re.DOTALL | re.MULTILINE)


def run(directory: Path, url: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "try_shelf.py"],
        cwd=directory,
        env=environment(DIPTYCH_DATABASE_URL=url),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_column_that_the_mapping_fills(database_url: str, tmp_path: Path) -> None:
    written = write_blocks(PAGE, tmp_path)
    assert run(tmp_path, database_url) == written[-1][1].output


@pytest.mark.parametrize("way", ["normalize", "unaccent"])
async def test_a_column_that_postgresql_computes(postgres_url: str, tmp_path: Path, way: str) -> None:
    """Rows of other programs are found as well."""
    written = write_blocks(PAGE, tmp_path)
    owner = Foreign(postgres_url)
    (computed,) = blocks("python postgresql")
    if way == "unaccent":
        (wrapped,) = blocks("sql")
        await owner.runs(*filter(str.strip, wrapped.split(";\n")))
        computed = re.sub(
            r"^FOLDED = .*$", "FOLDED = 'lower(plain(title) COLLATE \"default\")'", computed, flags=re.M
        )
    (tmp_path / "computed.py").write_text(computed, "utf-8")
    shelf = text_of(tmp_path / "shelf.py")
    models = re.compile(r"^def folded.*?(?=^class BookDocument)", re.DOTALL | re.MULTILINE)
    assert models.search(shelf)
    (tmp_path / "shelf.py").write_text(
        models.sub("", shelf).replace("import unicodedata\n", "from computed import Base, Book, folded\n"),
        "utf-8",
    )
    assert run(tmp_path, postgres_url) == written[-1][1].output
    await owner.runs(
        "INSERT INTO books (title) VALUES ('ÉMINENCE')", "DELETE FROM books WHERE title LIKE 'EM%'"
    )
    trying = text_of(tmp_path / "try_shelf.py")
    read_only = re.sub(r"^ +(titles = |await shelf\.orm).*\n", "", trying, flags=re.MULTILINE)
    (tmp_path / "try_shelf.py").write_text(read_only, "utf-8")
    assert run(tmp_path, postgres_url).startswith("['Émile', 'ÉMINENCE']\n")
    await owner.close()

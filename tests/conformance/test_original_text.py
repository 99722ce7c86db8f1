"""The samples of the original text run, with only the import lines changed."""

from __future__ import annotations

import ast
import datetime
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from demo_app.models.book import Book

TEXT = (Path(__file__).parent / "original_text.txt").read_text("utf-8")
INIT, CREATE, GET, UPDATE, DELETE, ALL = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


class Script:
    """Runs one sample after the other, with the names that those before it have bound."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = {}

    async def run(self, sample: str) -> None:
        source = re.sub(r"^from src\.services\.\S+ import", "from diptych import", sample, flags=re.MULTILINE)
        code = compile(source, "original_text.txt", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(code, self.names)  # noqa: S307
        if inspect.isawaitable(result):
            await result

    def __getattr__(self, name: str) -> Any:
        return self.names[name]


def fields(book: Book) -> dict[str, Any]:
    """The fields that the samples speak of, and `search_title`, which they need not know of, checked."""
    found = {name: value for name, value in vars(book).items() if not name.startswith("_")}
    assert found.pop("search_title") == book.title.lower()
    return found


ADDED = {
    "id": 1,
    "title": "A New Book",
    "author": "Author Name",
    "published_date": datetime.date(2024, 1, 1),
    "isbn": "1234567890",
    "stock_quantity": 10,
}


@pytest.fixture(params=["my_database.db", "postgresql"])
async def script(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The samples up to `init`, which opens the file they name or a PostgreSQL instead."""
    monkeypatch.chdir(tmp_path)
    init = (
        INIT
        if request.param == "my_database.db"
        else INIT.replace("my_database.db", request.getfixturevalue("postgres_url"))
    )
    script = Script()
    await script.run(init)
    yield script
    await script.orm_service.close()


async def test_every_sample_runs_and_does_what_it_says(script: Script):
    await script.run(CREATE)
    assert fields(script.new_book) == ADDED
    await script.run(GET)
    assert fields(script.book) == ADDED
    await script.run(UPDATE)
    assert script.updated_book is None  # by then no book has the title "A New Book"
    await script.run(ALL)
    assert [fields(book) for book in script.books] == [{**ADDED, "title": "Updated Book Title"}]
    await script.run(DELETE)
    await script.run(ALL)
    assert script.books == []


async def test_each_half_of_the_samples_finds_its_row(script: Script):
    """The second call of each sample, on a row that it finds."""
    await script.run(CREATE)
    by_key, by_title = UPDATE.split("# Update by specific column")
    await script.run("#" + by_title)
    assert fields(script.updated_book) == {**ADDED, "author": "Updated Author"}
    await script.run(by_key)
    assert script.updated_book.title == "Updated Book Title"
    await script.run("#" + DELETE.split("# Delete by a specific column")[1])
    await script.run(ALL)
    assert script.books == []


async def test_the_file_is_the_one_that_init_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    script = Script()
    await script.run(INIT)
    await script.run(CREATE)
    await script.orm_service.close()
    assert (tmp_path / "my_database.db").is_file()

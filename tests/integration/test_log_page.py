"""The statements of the page about the change log give what the page says, for rows of triggers too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.captured import Part, application, prepare

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "log.md"


def _statements(heading: str) -> list[str]:
    section = PAGE.read_text("utf-8").partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return re.findall(r"^```sql\n(.*?);\n```$", section, re.DOTALL | re.MULTILINE)


async def test_how_large_the_log_is(database_url):
    program = await prepare(database_url)
    async with application(database_url, None) as app:
        await app.orm.update(Part, "a", "code", amount=5)
        await program.runs("UPDATE parts SET amount = 6")
        async with app.orm.database.reader.connect() as connection:
            on_postgresql, on_sqlite = _statements("How large it is")
            found: Any = await connection.exec_driver_sql(on_sqlite if program.is_sqlite else on_postgresql)
            sizes = {row[0]: (row[1], row[2]) for row in found}
            sums = sa.text(
                'SELECT entity, sum(length("key")), sum(length(image)) FROM diptych_log GROUP BY entity'
            )
            for entity, keys, images in await connection.execute(sums):
                size = keys + (images or 0)
                assert sizes[entity][1] == (size if program.is_sqlite else f"{size} bytes")
    assert sizes["Maker"][0] == 2, "rows of triggers alone"


async def test_what_happened_to_a_row(database_url):
    program = await prepare(database_url)
    async with application(database_url, None) as app:
        await app.orm.update(Part, "a", "code", amount=5)
        await program.runs("UPDATE parts SET id = 7 WHERE code = 'b'", "DELETE FROM parts WHERE code = 'b'")
        (statement,) = _statements("What happened to a row")
        statement = statement.replace("'Book'", "'Part'")
        async with app.orm.database.reader.connect() as connection:
            kinds = [row.kind for row in await connection.exec_driver_sql(statement)]
            assert kinds == ["updated", "deleted"]

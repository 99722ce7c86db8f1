"""The terms and the condition of an SQLite index, read from the statement that made it."""

import pytest

from diptych.log.capture.sqlite import parts_of


@pytest.mark.parametrize(
    ("statement", "terms", "condition"),
    [
        ("CREATE UNIQUE INDEX one ON parts (code)", ["code"], ""),
        (
            "CREATE UNIQUE INDEX one ON parts (lower(code), amount DESC) WHERE (a) > (1)",
            ["lower(code)", "amount"],
            "(a) > (1)",
        ),
        ("CREATE UNIQUE INDEX one ON parts (coalesce(x, ')', 'a,b') asc)", ["coalesce(x, ')', 'a,b')"], ""),
        (
            'CREATE UNIQUE INDEX "od(d" ON "ta,ble" ( [a(b] || \'--\' /* , ( */ -- (,\n , (a-b)/2)',
            ["[a(b] || '--'", "(a-b)/2"],
            "",
        ),
        (
            "create unique index one on parts(where_)/* ( */where(where_ = ' -- ' AND where_ NOT IN ('(', ',')) -- x",
            ["where_"],
            "(where_ = ' -- ' AND where_ NOT IN ('(', ','))",
        ),
    ],
)
def test_terms_and_condition(statement, terms, condition):
    assert parts_of(statement) == (terms, condition)

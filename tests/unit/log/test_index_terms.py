"""The terms of an SQLite index, read from the statement that made it."""

import pytest

from diptych.log.capture.sqlite import terms_of


@pytest.mark.parametrize(
    ("statement", "terms"),
    [
        ("CREATE UNIQUE INDEX one ON parts (code)", ["code"]),
        (
            "CREATE UNIQUE INDEX one ON parts (lower(code), amount DESC) WHERE (a) > (1)",
            ["lower(code)", "amount"],
        ),
        ("CREATE UNIQUE INDEX one ON parts (coalesce(x, ')', 'a,b') asc)", ["coalesce(x, ')', 'a,b')"]),
        (
            'CREATE UNIQUE INDEX "od(d" ON "ta,ble" ( [a(b] || \'--\' /* , ( */ -- (,\n , (a-b)/2)',
            ["[a(b] || '--'", "(a-b)/2"],
        ),
    ],
)
def test_terms(statement, terms):
    assert terms_of(statement) == terms

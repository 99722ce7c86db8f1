"""The page that tells what the models show."""

from pathlib import Path

import pytest

from tests.model.capture import rules as capture
from tests.model.derived import rules as derived
from tests.model.history import rules as history
from tests.model.rows import rules as rows
from tests.model.rules import RULES

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "hinge-model.md"


@pytest.mark.parametrize(
    "rules",
    [RULES, rows.RULES, derived.RULES, history.RULES, capture.RULES],
    ids=["leases", "rows", "derived", "history", "capture"],
)
def test_every_rule_that_is_dropped_stands_on_the_page_as_it_is_said_here(rules):
    page = PAGE.read_text()
    assert [
        name for name, rule in rules.items() if f"| {rule.step} | `{name}`: {rule.says} |" not in page
    ] == []

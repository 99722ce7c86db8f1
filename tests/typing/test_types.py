"""The result type of a message reaches the type checker."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]


def run_mypy(file: Path) -> tuple[str, int]:
    out, err, status = api.run(
        ["--config-file", str(ROOT / "pyproject.toml"), "--no-error-summary", str(file)]
    )
    return out + err, status


def test_messages_carry_their_result_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """mypy, as strict as for the package itself, finds exactly the errors that `result_types.py` expects."""
    monkeypatch.chdir(ROOT)
    assert run_mypy(ROOT / "tests" / "typing" / "result_types.py") == ("", 0)


def test_an_expected_error_that_is_not_there_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the test above could never fail."""
    monkeypatch.chdir(ROOT)
    file = tmp_path / "wrong.py"
    file.write_text("number: int = 5  # type: ignore[assignment]\ntext: str = number\n")
    output, status = run_mypy(file)
    assert status == 1
    assert 'Unused "type: ignore" comment' in output
    assert "Incompatible types in assignment" in output

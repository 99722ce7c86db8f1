"""The examples in the docstrings of public names run, and print what they show."""

from __future__ import annotations

import doctest
import inspect
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

import diptych
import diptych.ext.alembic
import diptych.ext.fastapi
import diptych.ext.litestar
import diptych.ext.starlette
import diptych.http
import diptych.testing

MODULES = (
    diptych,
    diptych.http,
    diptych.ext.fastapi,
    diptych.ext.starlette,
    diptych.ext.litestar,
    diptych.ext.alembic,
    diptych.testing,
)


def _public() -> dict[str, object]:
    """Every public function and class by its full name, errors excepted."""
    found: dict[str, object] = {}
    for module in MODULES:
        for name in module.__all__:
            value = getattr(module, name)
            is_error = isinstance(value, type) and issubclass(value, BaseException)
            if (inspect.isfunction(value) or isinstance(value, type)) and not is_error:
                found[f"{module.__name__}.{name}"] = value
    return found


PUBLIC = _public()


def _examples(name: str) -> list[doctest.DocTest]:
    module: ModuleType | None = inspect.getmodule(PUBLIC[name])
    # Each in a module of its own: messages of one example are not to be missing a handler in the next one.
    tests = doctest.DocTestFinder(recurse=True).find(PUBLIC[name], name, module, globs={})
    return [test for test in tests if test.examples]


@pytest.mark.parametrize("name", PUBLIC)
def test_the_examples_of_a_public_name_print_what_they_show(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for variable in list(os.environ):
        if variable.startswith("DIPTYCH_"):
            monkeypatch.delenv(variable)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    tests = _examples(name)
    assert tests, "its docstring has no example"
    for number, test in enumerate(tests):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)
        # Of its own: a message of one example would have no handler in another, and frameworks look hints up there.
        own = ModuleType(f"example of {test.name}")
        monkeypatch.setitem(sys.modules, own.__name__, own)
        test.globs = vars(own)
        failed, _tried = runner.run(test, clear_globs=False)
        assert failed == 0, f"see the output above: {test.name}"

"""Finds diptych's classes and functions by their names, wherever in the package these are, and puts others in place.

No module of diptych is named here: the benchmark goes on to work when modules are joined or moved.
"""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import pkgutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import diptych


def the(name: str) -> Any:
    """Returns the object of this name: ``Batcher``, ``Batcher.get``, ``takes_raw_statements``.

    A name with a dot is looked up in its class. Fails unless exactly one object of diptych has the name.
    """
    first, _, attribute = name.partition(".")
    named = (vars(module)[first] for module in all_modules() if first in vars(module))
    found = {id(one): one for one in named if getattr(one, "__module__", "diptych").startswith("diptych")}
    assert len(found) == 1, f"{len(found)} objects of diptych are called {first}"
    (owner,) = found.values()
    return inspect.getattr_static(owner, attribute) if attribute else owner


def put(name: str, new: Any) -> None:
    """Puts ``new`` in the place of the object of this name, in every module that has the name."""
    first, _, attribute = name.partition(".")
    the(name)  # nothing is put where nothing was
    if attribute:
        setattr(the(first), attribute, new)
    else:
        for module in all_modules():
            if first in vars(module):
                setattr(module, first, new)


def uncache(*names: str) -> None:
    """Takes the caches off the functions of the modules in which these names are defined, wherever these are used."""
    homes = {module_of(name).__name__ for name in names}
    for module in all_modules():
        for name, found in list(vars(module).items()):
            if hasattr(found, "cache_info") and found.__module__ in homes:
                setattr(module, name, found.__wrapped__)


def module_of(name: str) -> ModuleType:
    """Returns the module in which the class or function of this name is defined."""
    return sys.modules[_function(the(name)).__module__]


def file_of(name: str) -> str:
    """Returns the path of the module of this name, from the folder ``diptych`` on."""
    file = Path(inspect.getfile(_function(the(name))))
    return str(file.relative_to(Path(diptych.__file__).parent))


def lines_of(name: str) -> int:
    """Returns the number of lines of this class or function, without docstrings, comments and empty lines."""
    source = textwrap.dedent(inspect.getsource(_function(the(name))))
    tree = ast.parse(source)
    texts = {
        number for text in _docstrings(tree) for number in range(text.lineno, (text.end_lineno or 0) + 1)
    }
    lines = enumerate(source.splitlines(), 1)
    return sum(
        1
        for number, line in lines
        if number not in texts and line.strip() and not line.strip().startswith("#")
    )


def _docstrings(tree: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            for part in node.body:
                if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant):
                    yield part.value


def _function(found: Any) -> Any:
    """Returns the class or function itself: the function in a property or behind a cache."""
    if isinstance(found, property):
        return found.fget
    if isinstance(found, functools.cached_property):
        return found.func
    return inspect.unwrap(found)


@functools.cache
def all_modules() -> tuple[ModuleType, ...]:
    """Returns all modules of diptych, loaded."""
    names = [found.name for found in pkgutil.walk_packages(diptych.__path__, "diptych.")]
    plain = [name for name in names if not name.rpartition(".")[2].startswith("_")]
    return (diptych, *map(importlib.import_module, plain))

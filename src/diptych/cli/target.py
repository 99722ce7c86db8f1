"""The target of a command, ``module:attribute``: its check, without an import, and its loading."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diptych.errors import DiptychError

if TYPE_CHECKING:
    from diptych.app import Diptych


class TargetError(DiptychError):
    """A named module, attribute or read model is not there, or is of the wrong kind."""


def add_current_directory() -> None:
    """Lets modules of the current directory be found, as ``python -m`` does."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def check_target(target: str) -> None:
    """Raises TargetError if ``target`` is malformed or its module cannot be found. Imports nothing."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", target):
        raise TargetError(f'"{target}" must have the form module:attribute, such as demo_app.app:app')
    path: Sequence[str] | None = None
    name = ""
    for part in target.partition(":")[0].split("."):
        parent, name = name, f"{name}.{part}".lstrip(".")
        spec = _find(name, path)
        if spec is None:
            raise TargetError(_not_found(name, parent))
        try:
            path = list(spec.submodule_search_locations or ())
        except KeyError:
            return  # a package without __init__.py, inside a package: only its import tells more


def load_target(target: str, factory: bool) -> Any:
    """Imports and returns the application: the attribute, or the result of the attribute with ``factory``.

    Raises TargetError if there is no such attribute or no application in it, and any error of the import.
    """
    found = _imported(target)
    if factory:
        found = _called(found, target)
    if not callable(found):
        raise TargetError(f'"{target}" is no ASGI application but a value of type {type(found).__name__}')
    if _takes_nothing(found):
        raise TargetError(f'"{target}" needs no arguments: if it returns the application, add --factory')
    return found


def load_diptych(target: str, factory: bool) -> Diptych:
    """Imports and returns the ``Diptych``: the attribute, its result, or the Diptych of an ``asgi_app`` application.

    With ``factory`` the attribute is called; a function without parameters is called anyway. Raises TargetError if
    there is no such attribute or no Diptych in it, and any error of the import.
    """
    from diptych.app import Diptych

    found = _imported(target)
    if factory or _takes_nothing(found):
        found = _called(found, target)
    diptych = found if isinstance(found, Diptych) else getattr(found, "diptych", None)
    if not isinstance(diptych, Diptych):
        raise TargetError(
            f'there is no Diptych in "{target}", which is a value of type {type(found).__name__}: name a Diptych, '
            "a function that returns one, or an application that asgi_app has made"
        )
    return diptych


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            close = difflib.get_close_matches(name, dir(found), n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise TargetError(f'"{module}" has no "{attribute}"{hint}') from None
    return found


def _takes_nothing(found: Any) -> bool:
    return inspect.isfunction(found) and all(
        parameter.default is not parameter.empty for parameter in inspect.signature(found).parameters.values()
    )


def _not_found(name: str, parent: str) -> str:
    if parent:
        return f'there is no module "{name}", though there is "{parent}": check the spelling'
    return (
        f'there is no module "{name}" in {Path.cwd()} or among the installed packages: check the spelling, '
        "or run this in the directory that holds the application"
    )


def _called(found: Any, target: str) -> Any:
    try:
        inspect.signature(found).bind()
    except TypeError:  # the value is no function, or one that needs arguments
        raise TargetError(
            f'"{target}" cannot be called: leave --factory out if it is the application'
        ) from None
    return found()


def _find(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    if path is None and name in sys.modules:
        return sys.modules[name].__spec__
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, path, None):
            return spec
    return None

"""Arguments of the commands of ``diptych``: the target, ``module:attribute``, and the address to listen at.

A target is checked without an import, and loaded. An address is tried before anything is started, and awaited
afterwards.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import inspect
import re
import socket
import sys
import time
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from diptych.errors import ConfigurationError, DiptychError

if TYPE_CHECKING:
    from diptych.app import Diptych


class CommandError(DiptychError):
    """A command cannot begin, or ended by itself; ``exit_code`` is for the process: 2 if it was asked wrongly."""

    def __init__(self, problem: str, exit_code: int = 1) -> None:
        super().__init__(problem)
        self.exit_code = exit_code


def exit_code_of(error: BaseException) -> int:
    """Returns the exit code of a process ended by ``error``: 2 for a wrong target or setting, else 1."""
    if isinstance(error, CommandError):
        return error.exit_code
    return 2 if isinstance(error, ConfigurationError) else 1


def add_current_directory() -> None:
    """Lets modules of the current directory be found, as ``python -m`` does."""
    here = str(Path.cwd())
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)


def check_target(target: str) -> None:
    """Raises CommandError if ``target`` is malformed or its module cannot be found. Imports nothing."""
    if not re.fullmatch(r"\w+(\.\w+)*:\w+(\.\w+)*", target):
        raise CommandError(f'"{target}" must have the form module:attribute, such as demo_app.app:app', 2)
    path: Sequence[str] | None = None
    name = ""
    for part in target.partition(":")[0].split("."):
        parent, name = name, f"{name}.{part}".lstrip(".")
        spec = _find(name, path)
        if spec is None:
            raise CommandError(_not_found(name, parent), 2)
        try:
            path = list(spec.submodule_search_locations or ())
        except KeyError:
            return  # a package without __init__.py, inside a package: only its import tells more


def load_target(target: str, factory: bool) -> Any:
    """Imports and returns the application: the attribute, or the result of the attribute with ``factory``.

    Raises CommandError if there is no such attribute or no application in it, and any error of the import.
    """
    found = _imported(target)
    if factory:
        found = _called(found, target)
    if not callable(found):
        raise CommandError(f'"{target}" is no ASGI application but a value of type {type(found).__name__}', 2)
    if _takes_nothing(found):
        raise CommandError(f'"{target}" needs no arguments: if it returns the application, add --factory', 2)
    return found


def load_diptych(target: str, factory: bool) -> Diptych:
    """Imports and returns the ``Diptych``: the attribute, its result, or that of the application in the attribute.

    With ``factory`` the attribute is called; a function without parameters is called anyway. Raises CommandError if
    there is no such attribute, and no Diptych in it or several; and any error of the import.
    """
    from diptych.cli.diptychs import diptychs_in, names_of_diptychs

    found = _imported(target)
    if factory or _takes_nothing(found):
        found = _called(found, target)
    diptychs = diptychs_in(found)
    if len(diptychs) == 1:
        return diptychs[0]
    module = target.partition(":")[0]
    named = " or ".join(f'"{module}:{name}"' for name in names_of_diptychs(sys.modules[module]))
    if diptychs:
        raise CommandError(
            f'there are {len(diptychs)} Diptychs in "{target}": name the one that is meant, such as '
            f"{named or 'a function that returns it'}",
            2,
        )
    raise CommandError(
        f'there is no Diptych in "{target}", which is a value of type {type(found).__name__}: name '
        f"{named or 'a Diptych, or a function that returns one'}; or let the application say which is its own, "
        "`app.state.diptych = …`, as the applications of diptych.ext do",
        2,
    )


def _imported(target: str) -> Any:
    module, _, attribute = target.partition(":")
    found: Any = importlib.import_module(module)
    for name in attribute.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            close = difflib.get_close_matches(name, dir(found), n=1)
            hint = f'; did you mean "{close[0]}"?' if close else ""
            raise CommandError(f'"{module}" has no "{attribute}"{hint}', 2) from None
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
        raise CommandError(
            f'"{target}" cannot be called: leave --factory out if it is the application', 2
        ) from None
    result = found()
    if inspect.iscoroutine(result):
        result.close()  # else Python complains that nobody has awaited it
        raise CommandError(
            f'"{target}" must not be async: nothing awaits it while the application is loaded', 2
        )
    return result


def _find(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    if path is None and name in sys.modules:
        return sys.modules[name].__spec__
    for finder in sys.meta_path:
        if spec := finder.find_spec(name, path, None):
            return spec
    return None


def free_address(host: str, port: int) -> tuple[str, int]:
    """Returns the address to listen at, with a free port for port 0. Raises CommandError if the port is taken.

    The server lets its workers share a port, and would share the port with another server as well.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise CommandError(f'there is no host "{host}": use an address of this machine', 2) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CommandError(_worded(error, host, port)) from error
        return str(address[0]), int(probe.getsockname()[1])


def _worded(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: stop the program that uses it, or choose another port"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has: choose one above 1023"
    return f"cannot listen at {host}, port {port}: {error.strerror}"


def url_of(host: str, port: int) -> str:
    """Returns the URL at which this machine reaches a server of this address."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (only named here)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def await_listening(url: str) -> None:
    """Returns when connections to ``url`` are accepted, or after some seconds without."""
    # A worker opens its port just after the application says that it has started.
    address = urlsplit(url)
    for _ in range(200):
        try:
            with socket.create_connection((address.hostname or "", address.port or 0), timeout=1):
                return
        except OSError:
            time.sleep(0.01)

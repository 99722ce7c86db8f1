"""The configuration of an application: defaults < a TOML file < environment variables < arguments.

Keys are upper case in code and in the environment (DIPTYCH_DATABASE_URL); files and arguments may write them in
lower case. A key unknown to diptych is a setting of the application's own, whose value is kept as given.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias

from diptych.config.setting import PREFIX, Setting, own_setting
from diptych.config.settings import SETTINGS, Settings
from diptych.errors import ConfigurationError

_FILE_VARIABLE = "DIPTYCH_CONFIG"
_FILE = "diptych.toml"
_KNOWN = {setting.name: setting for setting in SETTINGS}


# The key of a setting, the value given, the layer that gave it, and its exact place, for messages.
_Given: TypeAlias = tuple[str, Any, str, str]


class ConfigService:
    """The settings of an application, all checked at construction.

    ``file`` is a TOML file. Without it, the file named by DIPTYCH_CONFIG is read, else ./diptych.toml if it exists.
    ``environ`` replaces the environment of the process. ``values`` are the highest layer. ``settings`` holds the
    same values as ``get``, in typed fields and with times in seconds, for diptych itself.

    Raises ConfigurationError, which lists every faulty setting of every layer and where it was set. Neither
    errors nor ``repr`` show passwords; ``get`` returns the real values.

    >>> from diptych import ConfigService
    >>> config = ConfigService(database_url="postgresql://shop:secret@db.example/shop", mail_from="me@example.org")
    >>> config.get("MAIL_FROM"), config.get("LEASE_MS")
    ('me@example.org', 2000)
    >>> config
    ConfigService(DATABASE_URL='postgresql://shop:***@db.example/shop', MAIL_FROM='me@example.org')
    """

    def __init__(
        self,
        file: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        **values: Any,
    ) -> None:
        environ = os.environ if environ is None else environ
        given: list[_Given] = [*_from_file(file, environ), *_from_environment(environ)]
        given += ((k, v, "argument", f"argument {k}") for k, v in _upper(values, "arguments").items())
        self._values: dict[str, Any] = {setting.name: setting.default for setting in SETTINGS}
        self._layers: dict[str, str] = dict.fromkeys(self._values, "default")
        self._take(given)
        self.settings = Settings.of(self._values)

    def get(self, key: str, default: Any = None) -> Any:
        """Returns the value of ``key`` in its type; ``default`` if there is no value.

        Raises ConfigurationError if ``key`` is unknown but close to a setting of diptych: a slip, not an own setting.
        """
        key = key.upper()
        if key not in self._values and (meant := _meant(key)):
            raise ConfigurationError(key, f"is not a setting of diptych; did you mean {meant}?")
        value = self._values.get(key)
        return default if value is None else value

    def layer_of(self, key: str) -> str | None:
        """Returns the layer that gave the value: "argument", "environment", the file, or "default"; None: no value.

        >>> from diptych import ConfigService
        >>> ConfigService(database_url="shop.db", environ={}).layer_of("DATABASE_URL")
        'argument'
        """
        return self._layers.get(key.upper())

    def describe(self) -> list[tuple[Setting, str, str]]:
        """Returns every setting, its value without passwords, and the layer of the value; own settings last."""
        settings = [_KNOWN.get(key) or own_setting(key) for key in self._values]
        return [(s, s.show(self._values[s.name]), self._layers[s.name]) for s in settings]

    def __repr__(self) -> str:
        shown = ", ".join(f"{s.name}={value!r}" for s, value, layer in self.describe() if layer != "default")
        return f"ConfigService({shown})"

    def _take(self, given: list[_Given]) -> None:
        faults: list[tuple[str, str]] = []
        for key, value, layer, origin in given:
            try:
                self._values[key] = _checked(key, value)
                self._layers[key] = layer
            except ValueError as error:
                faults.append((key, f"{error} ({origin})"))
        if not faults and self._values["REDIS_CRITICAL"] and not self._values["REDIS_URL"]:
            faults.append(
                ("REDIS_CRITICAL", f"is true ({self._layers['REDIS_CRITICAL']}), but no REDIS_URL is set")
            )
        if faults:
            (key, problem), *others = faults
            # Without a cause, whose text could quote the value.
            raise ConfigurationError(key, problem + "".join(f"\n{k}: {p}" for k, p in others)) from None


def _checked(key: str, value: Any) -> Any:
    if setting := _KNOWN.get(key):
        return setting.parse(value)
    if meant := _meant(key):
        raise ValueError(f"is not a setting of diptych; did you mean {meant}?")
    return value


@lru_cache
def _meant(key: str) -> str | None:
    """Returns the name of a setting of diptych if ``key`` looks like a misspelling of that name."""
    bare = key.removeprefix(PREFIX)
    if bare != key and bare in _KNOWN:
        return bare
    if any(name in key for name in _KNOWN):  # ARCHIVE_DATABASE_URL is meant as it is written
        return None
    close = difflib.get_close_matches(key, _KNOWN, n=1, cutoff=0.85)
    return close[0] if close else None


def _from_file(file: str | os.PathLike[str] | None, environ: Mapping[str, str]) -> Iterator[_Given]:
    named = os.fspath(file) if file is not None else environ.get(_FILE_VARIABLE)
    path = Path(named or _FILE)
    if not named and not path.is_file():
        return
    for key, value in _upper(_read(path), f"file {path}").items():
        if key == "DIPTYCH":
            raise ConfigurationError(
                key, f"in {path}, put the settings of diptych at the top of the file, outside any table"
            )
        yield key, value, f"file {path}", f"{key} in the file {path}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError("CONFIG", f"cannot read the file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else error
        raise ConfigurationError("CONFIG", f"the file {path} is not valid TOML: {reason}") from None


def _from_environment(environ: Mapping[str, str]) -> Iterator[_Given]:
    for variable, value in sorted(environ.items()):
        key = variable.removeprefix(PREFIX)
        # An empty variable is one that was not set: shells and containers cannot always leave one out.
        if key not in ("", variable) and variable != _FILE_VARIABLE and value.strip():
            yield key.upper(), value, "environment", f"environment variable {variable}"


def _upper(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if key.upper() in found:
            raise ConfigurationError(key.upper(), f"is given twice ({where}), in upper and in lower case")
        found[key.upper()] = value
    return found

"""A setting: the type of its values, and how a value is read and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diptych.config.kinds import Kind
from diptych.config.urls import HIDDEN, is_telling, mask

PREFIX = "DIPTYCH_"
"""Prefix of the names of environment variables."""

_MILLISECONDS = "_MS"


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name, the kind of its values, its default, its meaning, and if it holds a secret.

    A setting whose default is None is optional: None, or the word "none", takes its value away.
    """

    name: str
    kind: Kind
    default: Any
    doc: str
    secret: bool = False

    @property
    def field(self) -> str:
        """The name of the setting's field in ``Settings``: ``lease_s`` of LEASE_MS, else the name in lower case."""
        if self.name.endswith(_MILLISECONDS):
            return self.name.removesuffix(_MILLISECONDS).lower() + "_s"
        return self.name.lower()

    @property
    def label(self) -> str:
        """The kind of the setting's values, in words."""
        return f"{self.kind.label}, or none" if self.default is None else self.kind.label

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return f"{PREFIX}{self.name}"

    def in_field(self, value: Any) -> Any:
        """Returns a parsed value as its field in ``Settings`` holds it: times in seconds, all else unchanged."""
        return value / 1000 if self.name.endswith(_MILLISECONDS) else value

    def parse(self, value: object) -> Any:
        """Returns ``value`` in the setting's type. Raises ValueError("must …") for any other value."""
        if isinstance(value, str):
            value = value.strip()
        if self.default is None and (value is None or str(value).lower() in ("", "none")):
            return None
        return self.kind.parse(value)

    def show(self, value: object) -> str:
        """Returns ``value`` as text for people, every password in it hidden."""
        if value is None:
            return "none"
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, tuple):
            return ",".join(value)
        return _veil(self.name, value) if self.secret else str(value)


def _veil(name: str, value: object) -> str:
    if is_telling(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_veil(str(key), item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_veil(name, item) for item in value) + "]"
    return mask(str(value))


def own_setting(name: str) -> Setting:
    """Returns a setting of the application's own: its value is kept as given, and shown without secrets."""
    return Setting(
        name, Kind("anything", lambda value: value), None, "A setting of the application's own.", secret=True
    )

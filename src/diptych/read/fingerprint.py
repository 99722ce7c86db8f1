"""The fingerprint: a short hash of a read model's declaration, different as soon as any byte in Redis might be.

Two versions of an application, deployed side by side, share their documents if they have the same fingerprint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import inspect

_LAYOUT = 3
"""Number of the layout of keys, documents, list entries and page cursors; to be raised with every change of their
bytes. tests/unit/read/test_ordering.py holds the bytes of the present layout.
"""


def declaration_hash(name: str, parts: Mapping[str, Any], document: type[msgspec.Struct]) -> str:
    """Returns 12 hexadecimal digits, the same for equal declarations in every process and version of Python.

    ``parts`` is the declaration apart from the document, as JSON can express it. Docstrings, descriptions and the
    names of classes don't count.
    """
    declared = [_LAYOUT, name, parts, _Shape().of(inspect.type_info(document))]
    return hashlib.sha256(_json(declared)).hexdigest()[:12]


class _Shape:
    """The translation of a type into nested lists of everything affecting accepted values or written bytes."""

    def __init__(self) -> None:
        self._seen: dict[int, int] = {}

    def of(self, node: Any) -> Any:
        if isinstance(node, inspect.Metadata):
            return self.of(node.type)  # a description or an example
        if isinstance(node, inspect.UnionType):
            # Sorted, since typing's caches may give them in the order in which another module wrote them.
            return ["union", sorted(map(self.of, node.types), key=_json)]
        if isinstance(node, inspect.EnumType):
            return ["enum", [member.value for member in node.cls]]
        if hasattr(node, "fields"):
            return self._of_fields(node)
        if isinstance(node, inspect.Type):
            return [type(node).__name__, self._of_attributes(node, ())]
        if isinstance(node, type):
            return f"{node.__module__}.{node.__qualname__}"
        if isinstance(node, tuple):
            return [self.of(item) for item in node]
        return node

    def _of_fields(self, node: Any) -> Any:
        if id(node) in self._seen:
            return ["seen", self._seen[id(node)]]  # a type may contain itself
        self._seen[id(node)] = len(self._seen)
        config = getattr(node.cls, "__struct_config__", None)
        return [
            type(node).__name__,
            self._of_attributes(node, ("cls", "fields")),
            getattr(config, "omit_defaults", False),
            [self._of_field(field) for field in node.fields],
        ]

    def _of_field(self, field: Any) -> Any:
        return [
            field.name,
            field.encode_name,
            self.of(field.type),
            field.required,
            *(_json(_default(value)).decode() for value in (field.default, field.default_factory)),
        ]

    def _of_attributes(self, node: Any, but: Sequence[str]) -> dict[str, Any]:
        """Returns the attributes with a value: a newer msgspec's attributes must not change every fingerprint."""
        values = {name: getattr(node, name) for name in node.__struct_fields__ if name not in but}
        return {name: self.of(value) for name, value in values.items() if value is not None}


def _default(value: Any) -> Any:
    if value is msgspec.NODEFAULT or value is msgspec.UNSET:
        return repr(value)
    return [value]


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value, order="deterministic", enc_hook=_name_of)


def _name_of(value: Any) -> str:
    """Returns the name of a value unknown to JSON, or of its type; its `repr` may hold an address in memory."""
    kind = value if hasattr(value, "__qualname__") else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"

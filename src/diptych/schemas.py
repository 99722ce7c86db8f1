"""Structs as models of pydantic, and so of FastAPI, by the hooks that pydantic calls. Nothing is imported of it.

A core schema of pydantic is made of plain dicts: https://docs.pydantic.dev/latest/internals/architecture/. The JSON
schema in it comes from msgspec, and is made when somebody asks for it.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec

from diptych.errors import WiringError

_TEXT_WITHIN = re.compile(rb"diptych:[0-9a-f]{32}")
_TEXT = re.compile(b'"%s"' % _TEXT_WITHIN.pattern)

_standing_in: ContextVar[_StandIns | None] = ContextVar("diptych_standing_in", default=None)


class _StandIns:
    """Documents and pages in a value that pydantic dumps. In the JSON a text stands for each until it is put back."""

    def __init__(self) -> None:
        self.by_text: dict[bytes, Any] = {}

    def stand_in(self, found: Any) -> str:
        """Returns the text that stands for a document or a page: nobody can guess it, and so have it replaced."""
        text = f"diptych:{secrets.token_hex(16)}"
        self.by_text[b'"%s"' % text.encode()] = found
        return text

    def put_back(self, sent: bytes) -> bytes:
        """Returns JSON with the stored bytes in place of the texts that stand for them."""
        return _TEXT.sub(lambda text: self._stored(text[0]), sent)

    def is_left_in(self, sent: bytes) -> bool:
        """Returns whether a text is still there, elsewhere than as a value of its own."""
        return any(b'"%s"' % text in self.by_text for text in _TEXT_WITHIN.findall(sent))

    def _stored(self, text: bytes) -> bytes:
        found = self.by_text.get(text)
        if found is None:  # somebody else's
            return text
        return found.body or b"null"


def with_stored_bytes(dump: Callable[[], bytes]) -> bytes:
    """Returns the JSON that pydantic makes by ``dump``, with the documents and pages in it as they are stored.

    Nobody sees a text that stands for one: where a function of the application's own has put it elsewhere than as a
    value, the JSON is made again, of decoded documents.
    """
    standing_in = _StandIns()
    token = _standing_in.set(standing_in)
    try:
        made = dump()
    finally:
        _standing_in.reset(token)
    whole = standing_in.put_back(made)
    return dump() if standing_in.is_left_in(whole) else whole


def answer_schema(kind: Any, document: Any) -> dict[str, Any]:
    """Returns the core schema of a `Document` or a `Page`: shown as ``document``, sent as the stored bytes."""

    def check(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        raise ValueError(f"must be a {kind.__name__}")

    return _core_schema(document, check, told)


def told(found: Any) -> Any:
    """Returns what is told of a document or a page in a model: the decoded JSON, or a text that stands for it."""
    standing_in = _standing_in.get()
    if standing_in is not None:
        return standing_in.stand_in(found)
    return None if found.body is None else msgspec.json.decode(found.body)


def struct_schema(kind: Any, make: Callable[[Mapping[str, Any]], Any] | None = None) -> dict[str, Any]:
    """Returns the core schema of a struct, made from outside data by ``make``, which refuses unknown fields."""

    def check(value: Any) -> Any:
        if isinstance(value, getattr(kind, "__origin__", kind)):
            return value
        if make is not None:
            return make(value)
        try:
            return msgspec.convert(value, kind, str_keys=True)
        except msgspec.ValidationError as error:
            raise ValueError(str(error)) from error

    return _core_schema(kind, check, msgspec.to_builtins, is_closed=make is not None)


def _core_schema(
    shown: Any, check: Callable[[Any], Any], tell: Callable[[Any], Any], *, is_closed: bool = False
) -> dict[str, Any]:
    return {
        "type": "function-plain",
        "function": {"type": "no-info", "function": check},
        "serialization": {"type": "function-plain", "function": tell, "return_schema": {"type": "any"}},
        "metadata": {"pydantic_js_annotation_functions": [_Shown(shown, is_closed=is_closed).root]},
    }


_UNKNOWN = (
    "something in it is neither a struct nor a dataclass nor a type of the standard library; for a model of pydantic "
    "in a message make the message one too, with CommandOf or QueryOf"
)


class _Shown:
    """The JSON schema of a type, whose structs become definitions of pydantic's, each once."""

    def __init__(self, kind: Any, *, is_closed: bool) -> None:
        try:
            (self._root,), self._components = msgspec.json.schema_components([kind], ref_template="{name}")
        except TypeError as error:
            raise WiringError([f"{kind!r} is no body and no answer of a route: {_UNKNOWN}"]) from error
        for component in self._components.values():
            if is_closed and "properties" in component:
                component["additionalProperties"] = False
            if "description" in component:
                component["description"] = first_paragraph(component["description"])
        self._open: set[str] = set()

    def root(self, _schema: Any, handler: Any) -> Any:
        """Returns the JSON schema of the type; pydantic calls this with its handler."""
        return self._linked(self._root, handler)

    def _ref(self, name: str) -> str:
        """Returns pydantic's reference to a definition: the name, and a mark where definitions have equal names."""
        within = {name: self._components[name]}
        for one in (names := [name]):
            for other in _names_in(self._components[one]):
                if other not in within:
                    within[other] = self._components[other]
                    names.append(other)
        return f"{name.rstrip('_')}:{sha256(msgspec.json.encode(within)).hexdigest()[:16]}"

    def _linked(self, schema: Any, handler: Any) -> Any:
        """Returns a part of a schema with references to pydantic's definitions."""
        if isinstance(schema, list):
            return [self._linked(part, handler) for part in schema]
        if not isinstance(schema, dict):
            return schema
        linked = {key: self._linked(part, handler) for key, part in schema.items() if key != "discriminator"}
        if isinstance(name := schema.get("$ref"), str):
            linked["$ref"] = self._definition(name, handler)
        if isinstance(discriminator := schema.get("discriminator"), dict) and "mapping" in discriminator:
            mapping = {tag: self._definition(name, handler) for tag, name in discriminator["mapping"].items()}
            linked["discriminator"] = {**discriminator, "mapping": mapping}
        return linked

    def _definition(self, name: str, handler: Any) -> str:
        """Returns the link to a component, which becomes a definition at its first use."""
        if name in self._open:  # it is within itself
            link: str = handler({"type": "definition-ref", "schema_ref": self._ref(name)})["$ref"]
            return link
        self._open.add(name)
        try:
            component = {
                "type": "any",
                "ref": self._ref(name),
                "metadata": {
                    "pydantic_js_functions": [lambda _, inner: self._linked(self._components[name], inner)]
                },
            }
            # pydantic heeds metadata in what is within a schema, and not in the schema that a handler is given.
            defined: str = handler({"type": "definitions", "schema": component, "definitions": []})["$ref"]
        finally:
            self._open.discard(name)
        return defined


def first_paragraph(docstring: str) -> str:
    """Returns the first paragraph of a docstring, in one line."""
    return re.sub(r"\s*\n\s*", " ", inspect.cleandoc(docstring).split("\n\n")[0])


def _names_in(schema: Any) -> Iterator[str]:
    """Yields the names of the components that a schema refers to."""
    if isinstance(schema, list):
        for part in schema:
            yield from _names_in(part)
    elif isinstance(schema, dict):
        for key, part in schema.items():
            if key == "$ref" and isinstance(part, str):
                yield part
            yield from _names_in(part)


class DataclassFields:
    """Makes a struct look like a dataclass: its fields, as the module ``dataclasses`` describes fields."""

    def __get__(self, instance: Any, owner: type[msgspec.Struct]) -> dict[str, dataclasses.Field[Any]]:
        return _dataclass_fields(owner)


@cache
def _dataclass_fields(struct: type[msgspec.Struct]) -> dict[str, dataclasses.Field[Any]]:
    fields = [(field.name, field.type, _dataclass_field(field)) for field in msgspec.structs.fields(struct)]
    twin = dataclasses.make_dataclass(struct.__name__, fields, kw_only=True)
    return {field.name: field for field in dataclasses.fields(twin)}


def _dataclass_field(field: msgspec.structs.FieldInfo) -> Any:
    if field.default is not msgspec.NODEFAULT:
        return dataclasses.field(
            default_factory=lambda: field.default
        )  # a list may be no default of a dataclass
    if field.default_factory is not msgspec.NODEFAULT:
        return dataclasses.field(default_factory=field.default_factory)
    return dataclasses.field()


def attach(kind: Any) -> None:
    """Lets pydantic know a struct, such as the document of a read model, that does not speak for itself."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and not hasattr(kind, _HOOK):
        setattr(kind, _HOOK, classmethod(lambda cls, source, handler: struct_schema(source)))


_HOOK = "__get_pydantic_core_schema__"

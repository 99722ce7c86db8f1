"""Plans for checking the fields of structs, made from their annotations.

A plan says how the values of a type are checked; ``Rule`` is a check beyond the types.
"""

from __future__ import annotations

import dataclasses
import enum
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec


class Rule:
    """A check beyond the types, for ``Annotated``: ``Annotated[str, Rule(not_blank)]``.

    ``check`` takes a value of the annotated type and returns the value, or an equal value in canonical form (a check
    of the canonical form must return the same). For a faulty value ``check`` raises ``ValueError("must …")``, which
    is reported behind the field's name. ``None`` and ``UNSET`` are not checked.

    >>> from typing import Annotated
    >>> from diptych import Command, InvalidMessage, Rule
    >>> def not_blank(text: str) -> str:
    ...     if not text.strip():
    ...         raise ValueError("must not be blank")
    ...     return text.strip()
    >>> class AddBook(Command[int], frozen=True):
    ...     title: Annotated[str, Rule(not_blank)]
    >>> AddBook(title=" Emma ").title
    'Emma'
    >>> try:
    ...     AddBook(title=" ")
    ... except InvalidMessage as error:
    ...     print(error)
    AddBook: title must not be blank
    """

    __slots__ = ("check",)

    def __init__(self, check: Callable[[Any], Any]) -> None:
        self.check = check


class Plan(NamedTuple):
    """The plan for checking the values of a type."""

    type: Any
    rules: tuple[Rule, ...]
    struct: type[Any] | None
    """The struct or dataclass that an object is converted to, if there is just one in the type."""
    tag: str
    """The name of the member of an object that says which struct is meant; empty if the structs have none."""
    tagged: Mapping[str | int, type[Any]]
    """These structs, by the values of that member."""
    item: Plan | None
    """The plan for the items of a list, or for the values of a dict."""
    is_deep: bool
    """True if msgspec alone can't check a value: there are rules inside, or structs and dataclasses."""
    scalars: frozenset[type]
    """The scalar types that a text can be read as."""
    allows_unset: bool


class Field(NamedTuple):
    """A field of a struct, a dataclass or a model of pydantic, and the plan for its values."""

    name: str
    plan: Plan
    required: bool
    default: Any = msgspec.NODEFAULT
    """The default value; NODEFAULT if there is none, or if it is made anew each time."""
    attribute: str = ""
    """The name of the attribute: of a model of pydantic with aliases another than outside data has."""


def _fields_of(kind: Any) -> tuple[Field, ...]:
    hints = get_type_hints(kind, include_extras=True)
    return tuple(
        Field(name, _plan(hints[attribute]), required, default, attribute)
        for attribute, name, required, default in _declared(kind)
    )


fields_of: Callable[[Any], tuple[Field, ...]] = cache(_fields_of)
"""Returns the fields of a struct, dataclass or model of pydantic, in their order, as outside data names them."""


def renamed_in(kind: Any) -> str | None:
    """Returns the name of a field of a message, or of a struct in it, that has another name in JSON; or None.

    (By `rename` or `name` of msgspec; what is built from outside data has the names of the attributes.)
    """
    waiting, seen = [kind], set[Any]()
    while waiting:
        struct = waiting.pop()
        if struct in seen:
            continue
        seen.add(struct)
        if issubclass(struct, msgspec.Struct):
            renamed = [one.name for one in msgspec.structs.fields(struct) if one.encode_name != one.name]
            if renamed:
                return f"{struct.__name__}.{renamed[0]}"
        waiting += _structs_in([field.plan for field in fields_of(struct)])
    return None


def unmakeable_in(kind: Any) -> str | None:
    """Returns the field of a message, or of a struct or dataclass in it, that no outside data can set; or None.

    It has a type that only the application knows and no default, or has a model of pydantic in a struct or dataclass
    (whether there is a default or not, since requests are meant to have it), or an alias of several steps.
    """
    waiting, seen = [kind], set[Any]()
    while waiting:
        record = waiting.pop()
        if record in seen:
            continue
        seen.add(record)
        if is_model(record):  # pydantic makes whatever is in it
            paths = (f for f, one in record.__pydantic_fields__.items() if _is_of_steps(one.validation_alias))
            return next((f"{record.__name__}.{f}, by its alias of several steps," for f in paths), None)
        for field in fields_of(record):
            for one in _types_in(field.plan.type):
                if isinstance(one, type) and _is_custom(one) and (is_model(one) or field.required):
                    return f"{record.__name__}.{field.name}, of the type {one.__name__},"
                if is_record(one):
                    waiting.append(one)
    return None


def _is_of_steps(alias: Any) -> bool:
    """Returns whether no single name sets a field with this alias."""
    return alias is not None and not any(isinstance(one, str) for one in getattr(alias, "choices", [alias]))


def _is_custom(kind: type) -> bool:
    return isinstance(msgspec.inspect.type_info(kind), msgspec.inspect.CustomType)


def _types_in(hint: Any) -> Iterator[Any]:
    """Yields the types that a type is made of."""
    for part in _parts_of(hint):
        arguments = () if get_origin(part) is Literal else get_args(part)
        if not arguments or is_record(part):
            yield part
        for one in arguments:
            yield from _types_in(one)


def _structs_in(plans: Iterable[Plan]) -> Iterator[type[Any]]:
    for plan in plans:
        if plan.struct is not None:
            yield plan.struct
        if plan.item is not None:
            yield from _structs_in([plan.item])


def is_record(kind: Any) -> bool:
    """Returns whether a type is a struct or a dataclass: their fields are checked one by one."""
    return isinstance(kind, type) and (issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind))


def _tag_of(kind: type[Any]) -> Any:
    """Returns the configuration of a struct that has a tag and is an object in JSON; None of others."""
    config = getattr(kind, "__struct_config__", None)
    return None if config is None or config.tag is None or config.array_like else config


def is_model(kind: type) -> bool:
    """Returns whether a class is a model of pydantic 2, of which nothing is imported here."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate")


def _declared(kind: Any) -> Iterator[tuple[str, str, bool, Any]]:
    """Yields attribute and name of each field, whether it is required, and its default."""
    if is_model(kind):
        for attribute, field in kind.__pydantic_fields__.items():
            alias = field.validation_alias or field.alias
            # Of several aliases pydantic takes each, and shows the first.
            alias = next((one for one in getattr(alias, "choices", [alias]) if isinstance(one, str)), alias)
            required = field.is_required()
            default = msgspec.NODEFAULT if required or field.default_factory else field.default
            yield attribute, alias if isinstance(alias, str) else attribute, required, default
    elif not issubclass(kind, msgspec.Struct):
        for field in dataclasses.fields(kind):
            default = msgspec.NODEFAULT if field.default is dataclasses.MISSING else field.default
            required = default is msgspec.NODEFAULT and field.default_factory is dataclasses.MISSING
            if field.init:
                yield field.name, field.name, required, default
    else:
        for field in msgspec.structs.fields(kind):
            yield field.name, field.name, field.required, field.default


def _plan(hint: Any) -> Plan:
    parts = list(_parts_of(hint))
    rules = tuple(part for part in parts if isinstance(part, Rule))
    kinds = [part for part in parts if not isinstance(part, Rule)]
    structs = [kind for kind in kinds if is_record(kind)]
    item = next((_plan(item) for kind in kinds for item in _item_types(kind)), None)
    told_apart = [(one, kind) for kind in structs if (one := _tag_of(kind)) is not None]
    return Plan(
        type=hint,
        rules=rules,
        struct=structs[0] if len(structs) == 1 else None,
        tag=told_apart[0][0].tag_field if told_apart else "",
        tagged={one.tag: kind for one, kind in told_apart},
        item=item,
        is_deep=bool(rules or structs or (item is not None and item.is_deep)),
        scalars=frozenset(scalar for kind in kinds for scalar in _scalars_of(kind)),
        allows_unset=any(kind is msgspec.UnsetType for kind in kinds),
    )


def _parts_of(hint: Any) -> Iterator[Any]:
    """Yields the rules in a type's annotations, and the alternatives of a union, or the type itself.

    A `NewType` and a `type` alias are the type behind them.
    """
    while (meant := getattr(hint, "__supertype__", getattr(hint, "__value__", None))) is not None:
        hint = meant
    if get_origin(hint) is Annotated:
        yield from (extra for extra in hint.__metadata__ if isinstance(extra, Rule))
        yield from _parts_of(hint.__origin__)
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from _parts_of(member)
    else:
        yield hint


def _scalars_of(hint: Any) -> Iterator[type]:
    """Yields the types of a type's values: of the members, for an enumeration or a literal."""
    if get_origin(hint) is Literal:
        yield from map(type, get_args(hint))
    elif isinstance(hint, type):
        yield from (type(member.value) for member in hint) if issubclass(hint, enum.Enum) else (hint,)


def _item_types(hint: Any) -> Iterator[Any]:
    """Yields the type of the items of a list or of the values of a dict; nothing for other types."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (list, Sequence) or (origin is tuple and arguments[1:] == (...,)):
        yield arguments[0]
    elif origin in (dict, Mapping):
        yield arguments[1]

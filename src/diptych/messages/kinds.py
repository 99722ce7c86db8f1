"""The kinds of messages: structs, and pydantic models and frozen dataclasses with a mixin."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any, TypeAlias, TypeVar, get_args, get_origin

import msgspec

from diptych.messages.message import Command, Message, Query
from diptych.messages.mixins import CommandOf, QueryOf
from diptych.messages.plans import fields_of, is_model, renamed_in

COMMANDS = (Command, CommandOf)
QUERIES = (Query, QueryOf)
AnyQuery: TypeAlias = Query[Any] | QueryOf[Any]
BASES: tuple[type, ...] = (*COMMANDS, *QUERIES)


def is_message(hint: Any) -> bool:
    """Returns whether a type is one of commands or of queries."""
    return isinstance(hint, type) and issubclass(hint, BASES)


def result_type(message: type) -> Any:
    """Returns the type of a message's result; ``Any`` if the message does not say it."""
    for base in getattr(message, "__orig_bases__", ()):
        if get_origin(base) in BASES:
            (result,) = get_args(base)
            return Any if isinstance(result, TypeVar) else result
    return Any


def field_names(message: type) -> tuple[str, ...]:
    """Returns the names of a message's fields; none of a base without fields."""
    if issubclass(message, Message):
        return message.__struct_fields__
    if is_model(message):
        return tuple(getattr(message, "__pydantic_fields__"))  # noqa: B009 - not known to mypy
    return tuple(getattr(message, "__dataclass_fields__", ()))


def fault_of_kind(message: Any) -> str | None:
    """Returns why a class can't be a message, and what to do; None if it can."""
    if issubclass(message, COMMANDS) and issubclass(message, QUERIES):
        return f"{message.__name__} is both a command and a query: make a class for each"
    if not issubclass(message, Message):
        mixin, base = ("CommandOf", "Command") if issubclass(message, CommandOf) else ("QueryOf", "Query")
        if fault := _unfit(message, base):
            return f"{message.__name__}, with the mixin {mixin}, {fault}"
    renamed = renamed_in(message)
    return renamed and (
        f"{message.__name__}: {renamed} has another name outside, by rename= or name= of msgspec, and requests have "
        "the names of the attributes: take that away, or call the attribute like that"
    )


def _unfit(message: Any, base: str) -> str | None:
    if issubclass(message, msgspec.Struct):
        return f"is a struct: derive it from {base}[…] alone"
    if dataclasses.is_dataclass(message):
        return _unfit_dataclass(message)
    if not is_model(message):
        return "is neither a model of pydantic 2 nor a dataclass: make it one of them, or a struct by " + base
    if not message.model_config.get("frozen"):
        return (
            'is not frozen, and a message may be handled twice: leave "frozen" out of its model_config, which the '
            "mixin sets"
        )
    return None


def _unfit_dataclass(message: Any) -> str | None:
    if hasattr(message, "__pydantic_validator__"):
        return "is a dataclass of pydantic: derive it from pydantic.BaseModel, or take dataclasses.dataclass"
    if "__dataclass_params__" not in vars(message):
        return "is derived from a dataclass without being one: write @dataclass(frozen=True) above it"
    if not message.__dataclass_params__.frozen:
        return "is not frozen, and a message may be handled twice: write @dataclass(frozen=True)"
    if set(inspect.signature(message).parameters) != {f.name for f in dataclasses.fields(message) if f.init}:
        return "has a constructor with other parameters than its fields: leave out __init__ and InitVar"
    try:
        for field in fields_of(message):
            msgspec.inspect.type_info(field.plan.type)
    except (TypeError, NameError) as error:
        return f"has a field that can't be checked: {error}"
    return None

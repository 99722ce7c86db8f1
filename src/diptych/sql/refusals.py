"""Writes of mapped classes refused by ``ORMService``, because they would drop a request of the mapping.

``ORMService`` has no session, so nothing that the ORM does in a flush happens by itself. `written.py` has the
replacements; docs/reference/mappings.md lists everything.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Collection, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, RelationshipDirection, RelationshipProperty

from diptych.errors import WiringError

Operation: TypeAlias = Literal["create", "update", "delete"]

_log = logging.getLogger("diptych.write")

_LISTENERS: dict[Operation, tuple[str, str]] = {
    "create": ("before_insert", "after_insert"),
    "update": ("before_update", "after_update"),
    "delete": ("before_delete", "after_delete"),
}
_PAST: dict[Operation, str] = {"create": "created", "update": "updated", "delete": "deleted"}


class Refusal(NamedTuple):
    """A refused write, with the reason and the remedy; with ``fields``, refused only if any of these changes."""

    operation: Operation
    reason: str
    fields: frozenset[str] = frozenset()


def check_write(mapper: Mapper[Any], operation: Operation, fields: Collection[str] = ()) -> None:
    """Raises ``WiringError`` if this write is refused. The mapping's relationships have to be configured."""
    found = _refusals(mapper, operation)
    if not found:
        return
    problems = [
        f"{mapper.class_.__name__} can't be {_PAST[operation]} by ORMService: {reason}"
        for _, reason, concerned in found
        if not concerned or concerned.intersection(fields)
    ]
    if problems:
        raise WiringError(problems)


def warn_of_refusals(mapper: Mapper[Any]) -> None:
    """Logs the refused writes."""
    for operation in _LISTENERS:
        for _, reason, fields in _refusals(mapper, operation):
            what = f", if its {' or '.join(sorted(fields))} changes" if fields else ""
            name = mapper.class_.__name__
            _log.warning("%s can't be %s by ORMService%s: %s", name, _PAST[operation], what, reason)


def is_made_by_database(column: sa.Column[Any]) -> bool:
    """Returns whether each update gives the column a new value by itself."""
    return column.onupdate is not None or column.system or is_fetched(column)


def is_fetched(column: sa.Column[Any]) -> bool:
    """Returns whether the mapping leaves the value to the database, as to a trigger."""
    is_changed = column.server_onupdate is not None and column.computed is None
    return is_changed or type(column.server_default) is sa.FetchedValue


def _refusals(mapper: Mapper[Any], operation: Operation) -> Sequence[Refusal]:
    # Listeners come and go; everything else stays as declared.
    dispatch, (before, after) = mapper.dispatch, _LISTENERS[operation]
    if getattr(dispatch, before) or getattr(dispatch, after):
        return [*_of_listeners(mapper, operation), *_of_declaration(mapper, operation)]
    return _of_declaration(mapper, operation)


@functools.lru_cache(maxsize=1024)
def _of_declaration(mapper: Mapper[Any], operation: Operation) -> Sequence[Refusal]:
    found = [*_of_version(mapper), *_of_relationships(mapper)]
    return [refusal for refusal in found if refusal.operation == operation]


def _of_listeners(mapper: Mapper[Any], operation: Operation) -> Iterator[Refusal]:
    for name in _LISTENERS[operation]:
        if getattr(mapper.dispatch, name):
            yield Refusal(
                operation,
                f"it has a {name} listener, which is called in the flush of a session, and ORMService has none; "
                "do in the handler what the listener does, or by a validator, a default or an onupdate",
            )


def _of_version(mapper: Mapper[Any]) -> Iterator[Refusal]:
    column = mapper.version_id_col
    if column is None or mapper.version_id_generator is not False or is_made_by_database(column):  # type: ignore[arg-type]
        return
    yield Refusal(
        "update",
        f"nothing gives it a new {column.key}: with version_id_generator=False the column needs an onupdate, or "
        "server_onupdate=FetchedValue() if the database makes it; or leave version_id_generator out",
    )


def _of_relationships(mapper: Mapper[Any]) -> Iterator[Refusal]:
    for one in mapper.relationships:
        if not one.viewonly:
            yield from _of_delete(one)
            yield from _of_key(mapper, one)


def _of_delete(one: RelationshipProperty[Any]) -> Iterator[Refusal]:
    deletes = one.cascade.delete or one.cascade.delete_orphan
    if one.direction is not RelationshipDirection.ONETOMANY and deletes:
        yield Refusal(
            "delete",
            f"its relationship {one.key} is to delete rows of {one.mapper.class_.__name__} with it (cascade), which "
            "no foreign key can do; leave that cascade out, and delete them in the handler",
        )
    elif one.direction is not RelationshipDirection.MANYTOONE:
        wanted = "CASCADE" if deletes or one.secondary is not None else "SET NULL"
        if not _is_left_to_database(one, wanted):
            done = "delete" if wanted == "CASCADE" else "set to null the references of"
            rows = one.mapper.class_.__name__ if one.secondary is None else str(one.secondary.description)
            yield Refusal(
                "delete",
                f"its relationship {one.key} is to {done} rows of {rows} with it, which its foreign key does not; "
                f'declare it with ondelete="{wanted}", or none, with which the database refuses to delete a row that '
                "others refer to; or give the relationship passive_deletes",
            )


def _is_left_to_database(one: RelationshipProperty[Any], wanted: str) -> bool:
    """Returns whether the database does the work of the ORM, or raises an error, or the mapping asks for nothing."""
    if one.passive_deletes == "all":
        return True
    keys = _keys_of(one)
    if not all(keys):
        return False  # the rows would silently keep a reference to a deleted row
    actions = {(key.constraint.ondelete if key.constraint is not None else None) for key in keys if key}
    return bool(one.passive_deletes) or {(action or "NO ACTION").upper() for action in actions} <= {
        *("NO ACTION", "RESTRICT", wanted)
    }


def _of_key(mapper: Mapper[Any], one: RelationshipProperty[Any]) -> Iterator[Refusal]:
    """Yields refusals of changed keys: the ORM carries these to referring rows unless the database does."""
    if one.passive_updates or one.direction is RelationshipDirection.MANYTOONE or all(_keys_of(one)):
        return
    fields = frozenset(mapper.get_property_by_column(local).key for local, _ in one.synchronize_pairs)
    yield Refusal(
        "update",
        f"its relationship {one.key} is to change the references to it (passive_updates=False), for which there "
        'is no foreign key; declare one, with onupdate="CASCADE" if keys change',
        fields,
    )


def _keys_of(one: RelationshipProperty[Any]) -> list[sa.ForeignKey | None]:
    """Returns the foreign key, or None, of each column referring to this class."""
    return [
        next((key for key in remote.foreign_keys if key.column is local), None)
        for local, remote in one.synchronize_pairs
    ]

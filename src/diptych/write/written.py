"""Values to write: a caller's, completed and changed as the mapping asks.

Mappings ask by validators and listeners of attributes, defaults of dataclasses, and versions (``version_id_col``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from diptych.errors import Fault, InvalidValueError, StaleVersionError
from diptych.sql.entity import MappedEntity
from diptych.sql.refusals import check_write
from diptych.write.statements import ColumnValues, RowValues


def values_of_new(entity: MappedEntity, fields: Mapping[str, Any]) -> ColumnValues:
    """Returns the values of a new row, made of the fields given by a caller.

    Raises ``WiringError``, ``UnknownColumnError``, ``InvalidValueError``.
    """
    check_write(entity.mapper, "create")
    version = _version_of(entity)
    if version is not None and version.generator:
        if version.name in fields:
            raise InvalidValueError(entity.name, [Fault(version.name, "is made by the mapping")])
        fields = {**fields, version.name: version.generator(None)}
    fields = _made_by_dataclass(entity, fields)
    if _has_listeners(entity, fields):
        given = entity.convert(fields)
        fields = _as_set(entity, None, given)
    return entity.convert(fields, complete=True)


class GivenChange(NamedTuple):
    """A caller's change of a row: the values, and the version read by the caller, if told."""

    entity: MappedEntity
    values: ColumnValues
    read: ReadVersion | None
    version: _Version | None
    is_listened_to: bool

    def of(self, before: RowValues) -> ColumnValues:
        """Returns the values to write into this row, empty if there is nothing to change.

        Raises ``StaleVersionError`` if the row has another version by now, ``InvalidValueError``.
        """
        if self.read is not None:
            self.read.check(before)
        values, version = self.values, self.version
        if self.is_listened_to:
            values = self.entity.convert(_as_set(self.entity, before, values))
        if values and version is not None and version.generator:
            values = {
                **values,
                **self.entity.convert({version.name: version.generator(before[version.name])}),
            }
        return values


class ReadVersion(NamedTuple):
    """The version of a row as a caller has read the row."""

    entity: MappedEntity
    name: str
    value: Any

    def check(self, row: RowValues) -> None:
        """Raises ``StaleVersionError`` if the row has a different version."""
        if row[self.name] != self.value:
            raise StaleVersionError(self.entity.name, self.name, self.value, row[self.name])


def given_change(entity: MappedEntity, fields: Mapping[str, Any]) -> GivenChange:
    """Returns the change asked for by these fields, with values in their columns' types.

    Raises ``WiringError``, ``UnknownColumnError``, ``InvalidValueError``.
    """
    version = _version_of(entity)
    read = _read_version(entity, version, fields)
    if read is not None:
        fields = {name: value for name, value in fields.items() if name != read.name}
    check_write(entity.mapper, "update", fields)
    return GivenChange(entity, entity.convert(fields), read, version, _has_listeners(entity, fields))


def given_deletion(entity: MappedEntity, fields: Mapping[str, Any]) -> ReadVersion | None:
    """Returns the version read by the caller, if told: a deletion may be given no other field.

    Raises ``WiringError``, ``UnknownColumnError``, ``InvalidValueError``.
    """
    check_write(entity.mapper, "delete")
    version = _version_of(entity)
    entity.check_names(fields)
    others = [name for name in fields if version is None or name != version.name]
    if others:
        faults = [Fault(name, "is not the version, the one field that delete takes") for name in others]
        raise InvalidValueError(entity.name, faults)
    return _read_version(entity, version, fields)


class _Version(NamedTuple):
    """The attribute of ``version_id_col``, and the function from a version to the next; False: the database does."""

    name: str
    generator: Any


def _version_of(entity: MappedEntity) -> _Version | None:
    column = entity.mapper.version_id_col
    if column is None:
        return None
    return _Version(entity.mapper.get_property_by_column(column).key, entity.mapper.version_id_generator)


def _read_version(
    entity: MappedEntity, version: _Version | None, fields: Mapping[str, Any]
) -> ReadVersion | None:
    if version is None or version.name not in fields:
        return None
    [value] = entity.convert({version.name: fields[version.name]}).values()
    return ReadVersion(entity, version.name, value)


def _made_by_dataclass(entity: MappedEntity, fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Adds the values of ``default_factory``; any other default of a dataclass is a default of the column, too."""
    if not dataclasses.is_dataclass(entity.model):
        return fields
    made = {
        field.name: field.default_factory()
        for field in dataclasses.fields(entity.model)
        if field.default_factory is not dataclasses.MISSING
        and field.name in entity.columns
        and field.name not in fields
    }
    return {**made, **fields}


def _has_listeners(entity: MappedEntity, fields: Mapping[str, Any]) -> bool:
    """Returns True if setting any of these attributes calls a listener; validators are listeners."""
    manager = entity.mapper.class_manager
    return any(manager[name].impl.dispatch.set for name in fields if name in entity.columns)


def _as_set(entity: MappedEntity, before: RowValues | None, values: ColumnValues) -> dict[str, Any]:
    """Sets these attributes on an instance, in turn, and returns the values of all attributes that were set.

    SQLAlchemy's own machinery calls validators and listeners, as it does for any instance; attributes that these set
    are among the values. A ``ValueError`` of a listener is a fault of the field.
    """
    new = entity.mapper.class_manager.new_instance
    instance = new() if before is None else entity.instance(before)
    for name, value in entity.named(values).items():
        try:
            setattr(instance, name, value)
        except ValueError as error:
            raise InvalidValueError(entity.name, [Fault(name, str(error))]) from error
    state = sa.inspect(instance)
    return {name: state.dict.get(name) for name in entity.columns if name in state.committed_state}

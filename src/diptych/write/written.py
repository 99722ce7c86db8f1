"""Values to write: a caller's, completed and changed as the mapping asks.

Mappings ask by validators and listeners of attributes, defaults of columns and dataclasses, and versions
(``version_id_col``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import sqlalchemy as sa

from diptych.errors import Fault, InvalidValueError, StaleVersionError
from diptych.sql.entity import MappedEntity
from diptych.sql.refusals import check_write
from diptych.write.defaults import with_defaults
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
        fields = _as_set(entity, None, entity.convert(fields))
    return with_defaults(entity, "default", entity.convert(fields, complete=True))


_NOT_TOLD = object()


class Version(NamedTuple):
    """The attribute of ``version_id_col``, and the version ``read`` by a caller, if told.

    ``generator`` is the function from a version to the next; False: the database does that.
    """

    entity: MappedEntity
    name: str
    generator: Any
    read: Any = _NOT_TOLD

    def check(self, row: RowValues) -> None:
        """Raises ``StaleVersionError`` if the row has a different version than the caller has read."""
        if self.read is not _NOT_TOLD and row[self.name] != self.read:
            raise StaleVersionError(self.entity.name, self.name, self.read, row[self.name])


class GivenChange(NamedTuple):
    """A caller's change of a row: the values, and the version if the mapping has versions.

    The values are completed by the columns' ``onupdate``, unless the change ``is_listened_to``: what listeners are
    told of is the caller's alone.
    """

    entity: MappedEntity
    values: ColumnValues
    version: Version | None
    is_listened_to: bool

    @property
    def is_plain(self) -> bool:
        """True if the values to write do not depend on the row."""
        return self.version is None and not self.is_listened_to

    def of(self, before: RowValues) -> ColumnValues:
        """Returns the values to write into this row, empty if there is nothing to change.

        Raises ``StaleVersionError`` if the row has another version by now, ``InvalidValueError``.
        """
        values, version = self.values, self.version
        if version is not None:
            version.check(before)
        if self.is_listened_to:
            values = _with_onupdate(self.entity, self.entity.convert(_as_set(self.entity, before, values)))
        if values and version is not None and version.generator:
            following = version.generator(before[version.name])
            return {**values, **self.entity.convert({version.name: following})}
        return values


def given_change(entity: MappedEntity, fields: Mapping[str, Any]) -> GivenChange:
    """Returns the change asked for by these fields, with values in their columns' types.

    Raises ``WiringError``, ``UnknownColumnError``, ``InvalidValueError``.
    """
    version = _with_read(_version_of(entity), fields)
    if version is not None and version.name in fields:
        fields = {name: value for name, value in fields.items() if name != version.name}
    check_write(entity.mapper, "update", fields)
    is_listened_to = _has_listeners(entity, fields)
    values = entity.convert(fields)
    completed = values if is_listened_to else _with_onupdate(entity, values)
    return GivenChange(entity, completed, version, is_listened_to)


def _with_onupdate(entity: MappedEntity, values: ColumnValues) -> ColumnValues:
    return with_defaults(entity, "onupdate", values) if values else values


def given_deletion(entity: MappedEntity, fields: Mapping[str, Any]) -> Version | None:
    """Returns the version if the mapping has versions: a deletion may be given no other field.

    Raises ``WiringError``, ``UnknownColumnError``, ``InvalidValueError``.
    """
    check_write(entity.mapper, "delete")
    version = _version_of(entity)
    entity.check_names(fields)
    others = [name for name in fields if version is None or name != version.name]
    if others:
        faults = [Fault(name, "is not the version, the one field that delete takes") for name in others]
        raise InvalidValueError(entity.name, faults)
    return _with_read(version, fields)


def _version_of(entity: MappedEntity) -> Version | None:
    mapper, column = entity.mapper, entity.mapper.version_id_col
    if column is None:
        return None
    return Version(entity, mapper.get_property_by_column(column).key, mapper.version_id_generator)


def _with_read(version: Version | None, fields: Mapping[str, Any]) -> Version | None:
    if version is None or version.name not in fields:
        return version
    [value] = version.entity.convert({version.name: fields[version.name]}).values()
    return version._replace(read=value)


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
    """Sets these attributes on an instance, in turn, and returns the values of all attributes set.

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

"""The entities of an application's mapped classes, and what is known of their tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper

from diptych.errors import WiringError
from diptych.sql.description import TableEffects
from diptych.sql.entity import LogImage, MappedEntity
from diptych.sql.mappings import resolve_mappings
from diptych.sql.refusals import warn_of_refusals


class EntityRegistry:
    """Finds the ``MappedEntity`` of a model, made at its first use, in the database of this name and token.

    ``images`` says, by models, what goes into the images of changes in the log; of any other model, every column.
    ``metadata`` has the tables of the application's base, whose models are used sooner or later.
    """

    def __init__(
        self,
        database: str,
        token: str = "",
        images: Mapping[type, LogImage] | None = None,
        metadata: sa.MetaData | None = None,
    ) -> None:
        self._database = database
        self._token = token
        self._images = images or {}
        self._entities: dict[type, MappedEntity] = {}
        self._warned: set[Mapper[Any]] = set()
        self._effects = TableEffects(set(), set(), {}, {})
        self._looked_at: Set[str] = frozenset()
        self._bases = set() if metadata is None else {metadata}

    def of(self, model: type) -> MappedEntity:
        """Returns the entity of a mapped class. Raises ``WiringError`` for any other class."""
        entity = self._entities.get(model)
        if entity is None:
            mapper: object = sa.inspect(model, raiseerr=False)
            if not isinstance(mapper, Mapper):
                raise WiringError(
                    [f"{model!r} is not a mapped class: pass a class that derives from your Base"]
                )
            entity = self._entities[model] = MappedEntity(
                model, mapper, self._database, self._token, self._images.get(model, "all")
            )
            self._give_effects(entity)
            self._warn_of(mapper)
        return entity

    @property
    def tables(self) -> list[sa.Table]:
        """The tables of all bases that entities are of, and of ``metadata``."""
        bases = {*self._bases, *(entity.table.metadata for entity in self._entities.values())}
        return [table for metadata in bases for table in metadata.tables.values()]

    @property
    def are_looked_at(self) -> bool:
        """False if there are entities whose effects are not known yet."""
        return all(entity.full_name in self._looked_at for entity in self._entities.values())

    def note_effects(self, tables: Iterable[sa.Table], effects: TableEffects) -> None:
        """Takes note of what changes of these tables may do, or notice, besides."""
        if self._database == "sqlite":
            effects = effects._replace(reaching={name.lower() for name in effects.reaching})
        self._effects, self._looked_at = effects, {str(table.fullname) for table in tables}
        for entity in self._entities.values():
            self._give_effects(entity)

    def _give_effects(self, entity: MappedEntity) -> None:
        # SQLite compares names without regard to case, and knows no schemas within a file.
        name = str(entity.table.name).lower() if self._database == "sqlite" else entity.full_name
        effects, is_unknown = self._effects, entity.full_name not in self._looked_at
        entity.has_effects = is_unknown or name in effects.reaching
        # Of a column that the mapping does not know to be unique, no entry tells that a value is free again.
        identifying = {str(entity.columns[column].name) for column in entity.identifying}
        entity.looks_late = name in effects.comparing or not effects.unique.get(name, set()) <= identifying
        entity.referring = effects.referring.get(name, set())

    def warn_of_all(self, mappers: Iterable[Mapper[Any]]) -> None:
        """Logs the refused writes, once for each mapper."""
        resolve_mappings()
        for mapper in mappers:
            self._warn_of(mapper)

    def _warn_of(self, mapper: Mapper[Any]) -> None:
        if mapper not in self._warned:
            self._warned.add(mapper)
            warn_of_refusals(mapper)

    def by_table(self, name: str) -> MappedEntity | None:
        """Returns the entity of a table, if the entity has been used so far."""
        return next((entity for entity in self._entities.values() if entity.full_name == name), None)

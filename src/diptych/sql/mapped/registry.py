"""The mapped classes of an application, read at their first use."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapper, configure_mappers

from diptych.errors import WiringError
from diptych.sql.mapped.entity import MappedEntity
from diptych.sql.mapped.refusals import warn_of_refusals


class EntityRegistry:
    """Finds the ``MappedEntity`` of a model, made at its first use."""

    def __init__(self) -> None:
        self._entities: dict[type, MappedEntity] = {}
        self._warned: set[Mapper[Any]] = set()
        self._database = ""

    def opened(self, database: str) -> None:
        """Forgets all entities; new entities judge values for the database of this name."""
        self._database = database
        self._entities.clear()

    def of(self, model: type) -> MappedEntity:
        """Returns the entity of a mapped class. Raises ``WiringError`` for any other class."""
        entity = self._entities.get(model)
        if entity is None:
            mapper: object = sa.inspect(model, raiseerr=False)
            if not isinstance(mapper, Mapper):
                raise WiringError(
                    [f"{model!r} is not a mapped class: pass a class that derives from your Base"]
                )
            entity = self._entities[model] = MappedEntity(model, mapper, self._database)
            self._warn_of(mapper)
        return entity

    def warn_of_all(self, mappers: Iterable[Mapper[Any]]) -> None:
        """Logs the refused writes, once for each mapper."""
        configure_mappers()
        for mapper in mappers:
            self._warn_of(mapper)

    def _warn_of(self, mapper: Mapper[Any]) -> None:
        if mapper not in self._warned:
            self._warned.add(mapper)
            warn_of_refusals(mapper)

    def by_table(self, name: str) -> MappedEntity | None:
        """Returns the entity of a table, if the entity has been used so far."""
        return next((entity for entity in self._entities.values() if entity.full_name == name), None)

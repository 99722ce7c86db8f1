"""The mappings of an application as a whole."""

from __future__ import annotations

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import configure_mappers

from diptych.errors import WiringError


def resolve_mappings() -> None:
    """Resolves the relationships of all mapped classes. Raises ``WiringError`` with what SQLAlchemy says is wrong."""
    try:
        configure_mappers()
    except SQLAlchemyError as error:
        raise WiringError(
            [f"SQLAlchemy can't resolve the mapped classes; mend the mapping: {error}"]
        ) from error

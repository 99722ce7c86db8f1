"""The catalogue without its pages: handlers and read model."""

from __future__ import annotations

from demo_app.handlers.book_handlers import BookCommandHandler, BookQueryHandler
from demo_app.models.book import Base
from demo_app.models.book_read_model import BookReadModel
from diptych import ConfigService, Diptych


def create_catalogue(config: ConfigService | None = None) -> Diptych:
    """Returns the catalogue, not yet started; `config` defaults to the settings of the environment."""
    return Diptych(
        config,
        models=Base,
        handlers=[BookCommandHandler, BookQueryHandler],
        read_models=[BookReadModel],
    )

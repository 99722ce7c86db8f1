"""The catalogue without its pages: handlers and read models."""

from __future__ import annotations

from demo_app.handlers.book_handlers import BookCommandHandler, BookQueryHandler
from demo_app.handlers.review_handlers import ReviewCommandHandler
from demo_app.handlers.tag_handlers import TagCommandHandler, TagQueryHandler
from demo_app.models.book import Base
from demo_app.models.book_read_model import BookDetailReadModel, BookReadModel, TagReadModel
from diptych import ConfigService, Diptych


def create_catalogue(config: ConfigService | None = None) -> Diptych:
    """Returns the catalogue, not yet started; `config` defaults to the settings of the environment."""
    return Diptych(
        config,
        models=Base,
        handlers=[
            BookCommandHandler,
            BookQueryHandler,
            ReviewCommandHandler,
            TagCommandHandler,
            TagQueryHandler,
        ],
        read_models=[BookReadModel, BookDetailReadModel, TagReadModel],
    )

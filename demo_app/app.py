"""The catalogue and its pages put together. A server runs `app`: `diptych run demo_app.app:app`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from litestar import Litestar, get
from litestar.datastructures import CacheControlHeader
from litestar.response import Redirect
from litestar.static_files import create_static_files_router

from demo_app.catalogue import create_catalogue
from demo_app.controllers.commands_books_controller import CommandsBooksController
from demo_app.controllers.commands_reviews_controller import CommandsReviewsController
from demo_app.controllers.commands_tags_controller import CommandsTagsController
from demo_app.controllers.health_controller import health
from demo_app.controllers.queries_books_controller import QueriesBooksController
from demo_app.controllers.queries_tags_controller import QueriesTagsController
from demo_app.pages import render_problem
from diptych import ConfigService
from diptych.ext.litestar import DiptychPlugin, asgi_app, routes
from diptych.http import hot_routes

STATIC = Path(__file__).parent / "static"


ENDPOINTS = (
    *QueriesBooksController.endpoints,
    *CommandsBooksController.endpoints,
    *CommandsReviewsController.endpoints,
    *QueriesTagsController.endpoints,
    *CommandsTagsController.endpoints,
)


def create_app(config: ConfigService | None = None) -> Callable[..., Awaitable[None]]:
    """Returns the catalogue as an ASGI application. Nothing is opened before its lifespan starts."""
    static = create_static_files_router(
        "/static", [STATIC], cache_control=CacheControlHeader(max_age=3600, public=True)
    )
    documented = routes(
        ENDPOINTS, title="The books catalogue", description="Books, their reviews and their tags."
    )
    site = Litestar(
        [home, health, static, *documented],
        plugins=[DiptychPlugin(create_catalogue(config), render_problem=render_problem)],
        openapi_config=None,
        logging_config=None,  # the server's, which Litestar would replace
    )
    return asgi_app(site, hot=hot_routes(ENDPOINTS))


@get("/", status_code=302)
async def home() -> Redirect:
    """Redirects to the catalogue."""
    return Redirect("/books", status_code=302)


app = create_app()

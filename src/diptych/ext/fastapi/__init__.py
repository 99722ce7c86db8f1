"""FastAPI: diptych in an application, with messages as bodies and routes, and documents and pages as answers.

    shop = Diptych(models=Base, handlers=[...], read_models=[...])
    app = FastAPI()
    install(app, shop, ENDPOINTS)          # lifespan, errors, request id, headers; endpoints as routes

Behind `install` a request's `scope["path"]`, and so `request.url.path`, has text parameters in the form `=AC%2FDC` if
the path has an encoded slash; routes see them decoded. The path as it was sent is in `raw_path`.
"""

from __future__ import annotations

from diptych.errors import MissingExtraError

try:
    import fastapi  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "fastapi":
        raise
    raise MissingExtraError("diptych.ext.fastapi", "fastapi", "fastapi") from error

from diptych.ext.fastapi.dependencies import provide, session
from diptych.ext.fastapi.install import install, router
from diptych.ext.starlette import diptych_of, respond

__all__ = ["diptych_of", "install", "provide", "respond", "router", "session"]

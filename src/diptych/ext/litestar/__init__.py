"""Litestar: a plugin for applications with a `Diptych`, and the ASGI application for the server.

    books = Diptych(config, models=Base, handlers=[...], read_models=[...])
    site = Litestar([...], plugins=[DiptychPlugin(books)], openapi_config=None)
    app = asgi_app(site)              # the server runs this

Three peculiarities of Litestar:

- Set `openapi_config=None`, or its pages appear under `/schema`, with scripts from elsewhere that the content
  security policy stops.
- `routes` makes handlers of endpoints. In handlers of your own, read bodies with
  `diptych.http.read_fields(request.scope, request.receive, max_bytes)`: a `data` parameter would have Litestar read
  and convert them by its own rules and limit (`request_max_body_size`).
- Debug pages never show, since the plugin answers every exception; `debug=True` only makes Litestar log them
  too.

Behind `asgi_app` a request's `scope["path"]`, and so `request.url.path`, has text parameters in the form
`=AC%2FDC`; handlers see them decoded. The path as it was sent is in `raw_path`.
"""

from __future__ import annotations

from diptych.ext.litestar.plugin import DiptychPlugin, RenderProblem, asgi_app
from diptych.ext.litestar.routing import routes

__all__ = ["DiptychPlugin", "RenderProblem", "asgi_app", "routes"]

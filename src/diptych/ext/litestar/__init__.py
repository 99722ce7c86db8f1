"""Litestar: a plugin for applications with a `Diptych`, and the ASGI application for the server.

    books = Diptych(config, models=Base, handlers=[...], read_models=[...])
    site = Litestar([...], plugins=[DiptychPlugin(books)], openapi_config=None)
    app = asgi_app(site)              # the server runs this

Three peculiarities of Litestar:

- Litestar's own pages under `/schema` have scripts from elsewhere that the content security policy stops:
  `openapi_config=None` leaves them out, and `routes(…, title=…)` has a page without.
- `routes` makes handlers of endpoints. In handlers of your own `data: JSONBody[AddBook]`, a message, is made by
  `build`; Litestar reads the body before, up to its own limit (`request_max_body_size`).
- Debug pages never show, since the plugin answers every exception; `debug=True` only makes Litestar log them
  too.

Behind `asgi_app` a request's `scope["path"]`, and so `request.url.path`, has text parameters in the form
`=AC%2FDC`; handlers see them decoded. The path as it was sent is in `raw_path`.
"""

from __future__ import annotations

from diptych.ext.litestar.plugin import DiptychPlugin, RenderProblem
from diptych.ext.litestar.routing import routes
from diptych.ext.litestar.serving import asgi_app

__all__ = ["DiptychPlugin", "RenderProblem", "asgi_app", "routes"]

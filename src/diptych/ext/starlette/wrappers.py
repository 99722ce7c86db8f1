"""The gate between the middleware of an application of Starlette and its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from itertools import chain

from starlette.applications import Starlette

from diptych.app import Diptych
from diptych.context import request_scope
from diptych.errors import WiringError
from diptych.ext.starlette.hot import faults_of_hot
from diptych.ext.starlette.paths import (
    Paths,
    faults_of_mounted,
    faults_of_others,
    faults_of_prefixes,
    found_routes,
    within_mounts,
)
from diptych.ext.starlette.problems import METHODS, problem_answer
from diptych.ext.starlette.results import keep_stored_bytes
from diptych.http.answers import send_answer
from diptych.http.asgi import ASGIApp, Receive, Scope, Send
from diptych.http.bodies import check_same_site
from diptych.http.errors import HttpError, problem_for
from diptych.http.front import Front
from diptych.http.reading import WatchedReceive
from diptych.http.stored import RETURNED, Returned, answering
from diptych.messages.kinds import AnyQuery

_READ_ONCE = "read it once, or make the fields of request.body() by parse_json or parse_form"


class Gate:
    """Stands behind the application's middleware and in front of its routes.

    Hot queries are answered here, so that what the middleware refuses is refused; first of all if there is none,
    since what a framework puts around each request takes as long as the answer. Other requests get their paths routed
    as they were sent, are refused if a browser sent them on behalf of another site, and may have documents and pages
    in their answers. The routes are read at the start, or at the first request.
    """

    def __init__(
        self, app: Starlette, diptych: Diptych, hot: Mapping[str, type[AnyQuery]], *, same_site: bool
    ) -> None:
        self._app = app
        self._diptych = diptych
        self._hot = hot
        self._same_site = same_site
        self._paths: Paths | None = None
        self._others: list[str] = []
        self.checks: list[Callable[[], Iterable[str]]] = []
        """Further checks of the routes at the start, which yield what is wrong."""
        self.hot_is_first = False
        """True if hot queries are answered first of all: there is no other middleware that might refuse them."""

    def prepare(self) -> None:
        """Reads the routes. Raises `WiringError` for endpoints and hot queries that can't be answered here."""
        routes = found_routes(self._app)
        self._paths = Paths(routes, within_mounts(self._app.routes))
        keep_stored_bytes(self._app.routes)
        problems = [*faults_of_prefixes(self._app.routes), *faults_of_mounted(self._app.routes)]
        problems += chain.from_iterable(check() for check in self.checks)
        if self._hot:
            problems += faults_of_hot(self._app.routes, self._hot)
        if problems:
            raise WiringError(problems)
        self._others = [one.template for one in routes]

    def check_others(self) -> None:
        """Raises `WiringError` for mounted applications whose `Diptych` is not started by now."""
        if problems := [*faults_of_others(self._app.routes)]:
            raise WiringError(problems)

    def hot_around(
        self, app: ASGIApp, headers: Iterable[tuple[bytes, bytes]] = (), *, is_first: bool
    ) -> ASGIApp:
        """Returns ``app`` behind the hot queries, if this is their place: first of all, or behind the middleware.

        ``headers`` are added to their answers.
        """
        if not self._hot or is_first != self.hot_is_first:
            return app
        fronts: list[Front] = []

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if not fronts and scope["type"] == "http":
                self._prepared()
                fronts.append(Front(self._diptych, self._hot, app, others=self._others, headers=headers))
            await (fronts[0] if fronts else app)(scope, receive, send)

        return answer

    def around(self, app: ASGIApp) -> ASGIApp:
        """Returns the gate as a middleware around ``app``."""

        async def rest(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            paths = self._prepared()
            try:
                if self._same_site:
                    check_same_site(scope)
                scope = paths.routed(scope)
            except HttpError as error:
                await send_answer(send, problem_answer(problem_for(error)))
                return
            returned, root = Returned(), scope.get("root_path", "")

            def methods_at(inner: Scope) -> Mapping[str, Iterable[tuple[bytes, bytes]]]:
                return paths.methods_at(inner, root)

            scope[RETURNED], scope[METHODS] = returned, methods_at
            token = request_scope.set(scope)
            try:
                await app(scope, WatchedReceive(receive, _READ_ONCE), answering(scope, returned, send))
            finally:
                request_scope.reset(token)

        return self.hot_around(rest, is_first=False)

    def has_head(self, scope: Scope) -> bool:
        """Returns whether a request for HEAD is for a route that has HEAD itself."""
        return self._prepared().has_head(scope)

    def _prepared(self) -> Paths:
        if self._paths is None:
            self.prepare()
        assert self._paths is not None  # noqa: S101 - for the type checker
        return self._paths

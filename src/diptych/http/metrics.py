"""Statistics as text for Prometheus, and the application that serves it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from diptych.http.answers import answer_problem
from diptych.http.asgi import ASGIApp, HeadAsGet, Receive, Scope, Send
from diptych.http.errors import MethodNotAllowed, problem_for
from diptych.statistics import ReadModelStatistics, Statistics, WaitStatistics

if TYPE_CHECKING:
    from diptych.app import Diptych

_CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


def metrics_app(diptych: Diptych) -> ASGIApp:
    """Returns `Diptych.statistics` for Prometheus as an ASGI application, to be mounted: at any path it is asked for.

    GET and HEAD are answered in the text format 0.0.4, other methods with 405, and an application that is not started
    with a problem. The figures are those of the process that answers.

    >>> import asyncio
    >>> import httpx
    >>> from diptych import Diptych
    >>> from diptych.http import metrics_app
    >>> from sqlalchemy.orm import DeclarativeBase
    >>> class Base(DeclarativeBase): ...
    >>> async def main():
    ...     async with Diptych(models=Base, handlers=[]) as shop:
    ...         transport = httpx.ASGITransport(metrics_app(shop))
    ...         async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
    ...             answer = await client.get("/metrics")
    ...             print(answer.headers["content-type"])
    ...             print(answer.text.splitlines()[-1])
    >>> asyncio.run(main())
    text/plain; version=0.0.4; charset=utf-8
    diptych_command_wait_greatest_seconds 0.0
    """

    async def answer(scope: Scope, _receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"statistics are asked for by HTTP, not by {scope['type']}")
        try:
            if scope["method"] != "GET":
                raise MethodNotAllowed(["GET"])
            body = prometheus_text(await diptych.statistics()).encode()
            headers = [(b"content-type", _CONTENT_TYPE), (b"content-length", b"%d" % len(body))]
            status, headers = 200, [*headers, (b"cache-control", b"no-store")]
        except Exception as error:
            problem = answer_problem(problem_for(error), [])
            status, headers, body = problem.status, list(problem.headers), problem.body
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return HeadAsGet(answer)


class _Sample(NamedTuple):
    """A value with its labels; ``suffix`` is that of a summary's parts."""

    value: float | None
    labels: Mapping[str, str] = {}
    suffix: str = ""


class _Metric(NamedTuple):
    name: str
    kind: str
    text: str
    samples: Callable[[Statistics], Iterable[_Sample]]


def prometheus_text(statistics: Statistics) -> str:
    """Returns statistics in Prometheus's text format, version 0.0.4. Unknown values are left out.

    https://prometheus.io/docs/instrumenting/exposition_formats/
    """
    return "".join(f"{line}\n" for metric in _METRICS for line in _lines(metric, statistics))


def _answers(statistics: Statistics) -> Iterator[_Sample]:
    for name, model in statistics.read_models.items():
        yield _Sample(model.answers_from_redis, {"read_model": name, "store": "redis", "reason": ""})
        for reason, number in sorted(model.answers_from_sql.items()):
            yield _Sample(number, {"read_model": name, "store": "sql", "reason": reason})


def _of_models(
    value: Callable[[ReadModelStatistics], float | None],
) -> Callable[[Statistics], Iterator[_Sample]]:
    return lambda statistics: (
        _Sample(value(model), {"read_model": name}) for name, model in statistics.read_models.items()
    )


def _of_waits(value: Callable[[WaitStatistics], float]) -> Callable[[Statistics], Iterable[_Sample]]:
    return lambda statistics: [_Sample(value(statistics.waits))]


def _wait_summary(statistics: Statistics) -> Iterable[_Sample]:
    waits = statistics.waits
    return [_Sample(waits.total_seconds, suffix="_sum"), _Sample(waits.number, suffix="_count")]


_METRICS = (
    _Metric("answers_total", "counter", "Answers to queries, by store and reason.", _answers),
    _Metric(
        "lag_changes",
        "gauge",
        "Committed changes that are not in Redis yet.",
        _of_models(lambda model: model.lag_changes),
    ),
    _Metric(
        "lag_seconds",
        "gauge",
        "Age of the oldest committed change that is not in Redis yet.",
        _of_models(lambda model: model.lag_seconds),
    ),
    _Metric(
        "passes_total",
        "counter",
        "Passes over the change log that this process has completed.",
        _of_models(lambda model: model.passes.number),
    ),
    _Metric(
        "pass_changes_total",
        "counter",
        "Changes that the passes of this process have found.",
        _of_models(lambda model: model.passes.changes),
    ),
    _Metric(
        "pass_last_seconds",
        "gauge",
        "Duration of the last pass of this process.",
        _of_models(lambda model: model.passes.last_seconds),
    ),
    _Metric(
        "command_wait_seconds",
        "summary",
        "Waits of commands, after their commit, until queries see what they rest on.",
        _wait_summary,
    ),
    _Metric(
        "command_waits_by_pass_total",
        "counter",
        "Commands that waited for a pass or for the end of a lease.",
        _of_waits(lambda waits: waits.by_pass),
    ),
    _Metric(
        "command_wait_greatest_seconds",
        "gauge",
        "Longest wait of a command since the start.",
        _of_waits(lambda waits: waits.greatest_seconds),
    ),
)


def _lines(metric: _Metric, statistics: Statistics) -> Iterator[str]:
    known = [sample for sample in metric.samples(statistics) if sample.value is not None]
    if known:
        yield f"# HELP diptych_{metric.name} {metric.text}"
        yield f"# TYPE diptych_{metric.name} {metric.kind}"
    for sample in known:
        labels = ",".join(f'{label}="{_escaped(value)}"' for label, value in sample.labels.items())
        yield f"diptych_{metric.name}{sample.suffix}{labels and f'{{{labels}}}'} {sample.value}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")

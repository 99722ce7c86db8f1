"""The table of routes: the most exact template is found, and where it leads nowhere the next one."""

from __future__ import annotations

import re

import pytest

from diptych.http.paths import RouteTable, Segment, template_segments

TEMPLATES = (
    "/",
    "/books/{title}",
    "/books/{id:int}",
    "/books/new",
    "/{kind}/latest",
    "/files/{path:path}",
    "/admin/*",
)


@pytest.mark.parametrize(
    ("path", "template"),
    [
        ("/", "/"),
        ("/books/new", "/books/new"),
        ("/books/old", "/books/{title}"),
        ("/books/12", "/books/{title}"),  # text is tried before types
        ("/books/latest", "/books/{title}"),
        ("/tomes/latest", "/{kind}/latest"),
        ("/files/a/b", "/files/{path:path}"),
        ("/files/../b", None),
        ("/files", None),
        ("/admin", "/admin/*"),
        ("/admin//x", "/admin/*"),
        ("/admin/latest", "/admin/*"),
        ("/books", None),
        ("/books/", None),
        ("/books//", None),
    ],
)
def test_the_most_exact_template_is_found(path: str, template: str | None):
    found = RouteTable([(template, template) for template in TEMPLATES]).match(path.split("/")[1:])
    assert list(found) == ([] if template is None else [template])


def test_templates_of_one_route_are_found_together_in_their_order():
    table = RouteTable([("/{b}", 1), ("/{a:str}", 2), ("/{c:int}", 3)])
    assert list(table.match(["x"])) == [1, 2]


@pytest.mark.parametrize(
    ("takes", "latest"), [(None, ["number"]), (re.compile("[0-9]+").fullmatch, ["latest"])]
)
def test_a_typed_segment_takes_what_the_table_is_told(takes, latest):
    routes = [("/numbers/{id:int}", "number"), ("/{kind}/latest", "latest")]
    table = RouteTable(routes) if takes is None else RouteTable(routes, takes)
    assert list(table.match(["numbers", "latest"])) == latest
    assert list(table.match(["numbers", "7"])) == ["number"]
    assert list(table.match(["numbers", "7/8"])) == []


def test_nothing_follows_a_segment_that_takes_all_the_rest():
    assert template_segments("/a/{file:path}/b") == [Segment("fixed", "a"), Segment("rest", "path", "file")]
    assert template_segments("/a/*/b") == [Segment("fixed", "a"), Segment("mount", "*")]

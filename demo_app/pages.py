"""HTML: the templates, and the page of a problem."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import Request

from demo_app.forms.filter_form import SORTS
from diptych.http import Problem, encode_segment

__all__ = ["book_path", "list_path", "render", "render_problem", "tag_path"]


def book_path(title: str) -> str:
    """Returns the path of the book of this title, for any characters in the title."""
    return f"/books/{encode_segment(title)}"


def tag_path(name: str) -> str:
    """Returns the path of the tag of this name, for any characters in the name."""
    return f"/tags/{encode_segment(name)}"


def list_path(parameters: Mapping[str, str], path: str = "/books") -> str:
    """Returns the path of the list with these parameters of its query string."""
    return f"{path}?{urlencode(parameters)}" if parameters else path


def render(template: str, **values: Any) -> str:
    """Returns the page of `template`. Every value is escaped."""
    return _environment.get_template(template).render({"served": None, "flash": None, **values})


def render_problem(problem: Problem, request: Request[Any, Any, Any]) -> str:
    """Returns the page of a problem, for people."""
    return render("problem.html", problem=problem, retry_after=problem.headers.get("Retry-After"))


def _sentence(text: str) -> str:
    """Returns a problem's clause as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', '!', '?')) else '.'}" if text else ""


_environment = Environment(
    loader=PackageLoader("demo_app"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters |= {"book_path": book_path, "tag_path": tag_path, "sentence": _sentence}
_environment.globals |= {"list_path": list_path, "sorts": SORTS}

"""The documentation page: an OpenAPI document as HTML, without a script and with nothing from elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

Part = Mapping[str, Any]
Row = tuple[str, ...]


def page_of_document(document: Part, css: str, source: str) -> str:
    """Returns the page of an OpenAPI document; ``css`` and ``source`` are the paths of its style and its source."""
    info = document["info"]
    title = escape(info["title"])
    groups = _grouped(document)
    about = f"<p>{escape(info['description'])}</p>" if "description" in info else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f'<title>{title}</title>\n<link rel="icon" href="data:,">\n<link rel="stylesheet" href="{escape(css)}">\n'
        f"</head>\n<body>\n<header>\n<h1>{title}</h1>\n"
        f'<p>Version {escape(info["version"])} · <a href="{escape(source)}">OpenAPI document</a></p>\n{about}'
        f"</header>\n{_contents(groups)}<main>\n{''.join(_group(name, found) for name, found in groups.items())}"
        f"{_schemas(document['components']['schemas'])}</main>\n</body>\n</html>\n"
    )


def _grouped(document: Part) -> dict[str, list[tuple[str, str, Part]]]:
    """Returns method, path and operation of all operations, by their first tags."""
    groups: dict[str, list[tuple[str, str, Part]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            groups.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return groups


def _contents(groups: Mapping[str, Any]) -> str:
    links = "".join(f'<li><a href="#{_id("tag", name)}">{escape(name)}</a></li>' for name in groups)
    return f'<nav aria-label="Contents"><ul>{links}<li><a href="#schemas">Schemas</a></li></ul></nav>\n'


def _group(name: str, operations: Iterable[tuple[str, str, Part]]) -> str:
    shown = "".join(_operation(*one) for one in operations)
    anchor = _id("tag", name)
    return f'<section aria-labelledby="{anchor}">\n<h2 id="{anchor}">{escape(name)}</h2>\n{shown}</section>\n'


def _operation(method: str, path: str, operation: Part) -> str:
    description = operation.get("description")
    parts = [
        f"<p>{escape(description)}</p>" if description else "",
        _parameters(operation.get("parameters", ())),
        _body(operation.get("requestBody")),
        _answers(operation["responses"]),
    ]
    anchor = _id("op", operation["operationId"])
    return (
        f'<details id="{anchor}">\n<summary><span class="method {method.lower()}">{method}</span> '
        f'<code class="path">{_breakable(path)}</code> '
        f'<span class="about">{escape(operation["summary"])}</span></summary>\n'
        f'<div class="body">{"".join(parts)}</div>\n</details>\n'
    )


def _parameters(parameters: Iterable[Part]) -> str:
    rows: list[Row] = [
        (_name(one["name"], one.get("required", False)), escape(f"{one['in']}"), _schema(one["schema"]))
        for one in parameters
    ]
    return _table("Parameters", ("Name", "In", "Value"), rows)


def _body(body: Part | None) -> str:
    if body is None:
        return ""
    shown = []
    for kind, content in body["content"].items():
        schema = content["schema"]
        shown.append(
            _table(f"Body: {kind}", ("Field", "Value"), _fields(schema)) or f"<p>{_schema(schema)}</p>"
        )
    return "".join(shown)


def _fields(schema: Part) -> list[Row]:
    required = schema.get("required", ())
    return [
        (_name(name, name in required), _schema(value))
        for name, value in schema.get("properties", {}).items()
    ]


def _answers(responses: Part) -> str:
    rows: list[Row] = []
    for status, answer in responses.items():
        content = answer.get("content", {}).items()
        kinds = ", ".join(f"{escape(kind)}{_typed(sent['schema'])}" for kind, sent in content)
        headers = ", ".join(f"<code>{escape(name)}</code>" for name in answer.get("headers", ()))
        more = " · ".join(filter(None, (kinds, headers)))
        meaning = escape(answer["description"]) + (f"<br><small>{more}</small>" if more else "")
        rows.append((f'<span class="status s{status[0]}">{status}</span>', meaning))
    return _table("Answers", ("Status", "Meaning"), rows)


def _typed(schema: Part) -> str:
    return "" if schema == {"type": "string"} else f": {_schema(schema)}"


def _schemas(schemas: Part) -> str:
    shown = "".join(
        f'<details id="{_id("schema", name)}">\n<summary><code class="path">{escape(name)}</code> '
        f'<span class="about">{escape(schema.get("description", ""))}</span></summary>\n'
        f'<div class="body">{_table("", ("Field", "Value"), _fields(schema)) or _schema(schema)}</div>\n</details>\n'
        for name, schema in schemas.items()
    )
    return f'<section aria-labelledby="schemas">\n<h2 id="schemas">Schemas</h2>\n{shown}</section>\n'


_BOUNDS = {
    **{"minimum": "at least", "maximum": "at most", "exclusiveMinimum": "more than"},
    **{"exclusiveMaximum": "less than", "minLength": "at least", "maxLength": "at most"},
    **{"minItems": "at least", "maxItems": "at most", "multipleOf": "a multiple of", "pattern": "like"},
}
_UNITS = {"Length": " characters", "Items": " items"}


def _schema(schema: Part) -> str:
    """Returns a schema in words, as HTML."""
    words = [_kind(schema)]
    for name, phrase in _BOUNDS.items():
        if name in schema:
            unit = next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")
            words.append(f"{phrase} {escape(str(schema[name]))}{unit}")
    if "default" in schema:
        words.append(f"default <code>{escape(json.dumps(schema['default'], ensure_ascii=False))}</code>")
    if "description" in schema and "properties" not in schema:
        words.append(escape(schema["description"]))
    return ", ".join(words)


def _kind(schema: Part) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#{_id("schema", name)}">{escape(name)}</a>'
    for some in ("anyOf", "oneOf"):
        if some in schema:
            return " or ".join(_schema(one) for one in schema[some])
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return "one of " + ", ".join(
            f"<code>{escape(json.dumps(one, ensure_ascii=False))}</code>" for one in values
        )
    if schema.get("type") == "array":
        return f"list of {_schema(schema['items'])}" if schema.get("items") else "list"
    if isinstance(schema.get("additionalProperties"), Mapping):
        return f"object of {_schema(schema['additionalProperties'])}"
    if schema.get("properties"):
        fields = ", ".join(
            f"<code>{escape(name)}</code>: {_kind(value)}" for name, value in schema["properties"].items()
        )
        return f"object with {fields}"
    kind = schema.get("format") or schema.get("type", "anything")
    return escape(str({"string": "text", "integer": "whole number"}.get(kind, kind)))


def _name(name: str, required: bool) -> str:
    return f"<code>{escape(name)}</code>{' <small>required</small>' if required else ''}"


def _table(caption: str, heads: Iterable[str], rows: list[Row]) -> str:
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in rows)
    title = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>\n"


def _breakable(path: str) -> str:
    return escape(path).replace("/", "/<wbr>")


def _id(kind: str, name: str) -> str:
    return escape(f"{kind}-" + "".join(char if char.isalnum() else "-" for char in name))

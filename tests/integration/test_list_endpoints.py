"""The page on list endpoints: each of its blocks runs on both stores, and gives what Python selects and sorts."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import indent
from types import ModuleType
from typing import Any

import msgspec
import pytest

from diptych import Diptych, ReadModel
from tests.catalogue import answered_by
from tests.configuration import configured

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "list-endpoints.md"
IMPORTS = """
from datetime import datetime
from decimal import Decimal
from msgspec import Struct
from sqlalchemy import Column, DateTime, ForeignKey, Numeric, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from diptych import *
"""
SECTIONS = {
    heading: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for heading, text in re.findall(
        r"^#+ (.+?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
}
START = datetime(2026, 1, 1, tzinfo=UTC)
FIRST, LAST = START + timedelta(hours=10), START + timedelta(hours=70)

Row = dict[str, Any]


def _hours(row: Row, name: str) -> float:
    return float((row[name] - START).total_seconds())


def _moment(n: int) -> datetime:
    return START + timedelta(hours=n * 7 % 97)


@dataclass
class Endpoint:
    """An endpoint of the page: its rows, those that it shows, and their order."""

    model: str
    row: Callable[[int], Row]
    shown: Callable[[Row], bool]
    order: Callable[[Row], Any]


def _item(n: int) -> Row:
    return {
        "id": n,
        "owner_id": n % 3 + 6,
        "tenant": ("acme", "zeta")[n % 2],
        "name": f"item {n * 13 % 50}",
        "price": n * 11 % 17,
        "created": _moment(n),
        "deleted": _moment(n) if n % 4 == 0 else None,
    }


def _user(n: int) -> Row:
    return {"id": n, "email": f"{('an', 'An', 'bo', 'anna')[n % 4]}{n}@example.com"}


CATEGORIES = ("lamps", "desks", "chairs")


def _offer(n: int) -> Row:
    return {"id": n, "price": n * 11 % 17, "categories": CATEGORIES[: n % 4]}


def _id(row: Row) -> Any:
    return row["id"]


ENDPOINTS = {
    "Items of an owner, newest first": Endpoint(
        "Item", _item, lambda row: row["owner_id"] == 7, lambda row: (-_hours(row, "created"), row["id"])
    ),
    "Of a tenant by name, with the total": Endpoint(
        "Item", _item, lambda row: row["tenant"] == "acme", lambda row: (row["name"], row["id"])
    ),
    "Open tickets by priority, then age": Endpoint(
        "Ticket",
        lambda n: {"id": n, "is_open": n % 3 > 0, "priority": n % 5, "opened": _moment(n)},
        lambda row: row["is_open"],
        lambda row: (-row["priority"], row["opened"], row["id"]),
    ),
    "Unread messages of a user": Endpoint(
        "Message",
        lambda n: {"id": n, "recipient_id": n % 2 + 6, "read": n % 5 == 0, "sent": _moment(n)},
        lambda row: row["recipient_id"] == 7 and not row["read"],
        lambda row: (-_hours(row, "sent"), row["id"]),
    ),
    "Events between two times": Endpoint(
        "Happening",
        lambda n: {"id": n, "at": _moment(n)},
        lambda row: FIRST <= row["at"] <= LAST,
        lambda row: (row["at"], row["id"]),
    ),
    "Users by the beginning of their e-mail address": Endpoint(
        "User", _user, lambda row: row["email"].startswith("an"), lambda row: row["email"]
    ),
    "Runs of a job by start time, those that wait first": Endpoint(
        "Run",
        lambda n: {"id": n, "job_id": n % 2 + 6, "started": None if n % 6 == 1 else _moment(n)},
        lambda row: row["job_id"] == 7,
        lambda row: (0, 0, row["id"]) if row["started"] is None else (1, -_hours(row, "started"), row["id"]),
    ),
    "Members of a team by role": Endpoint(
        "Member",
        lambda n: {"team_id": n % 2 + 6, "user_id": n, "role": ("member", "admin", "guest")[n % 3]},
        lambda row: row["team_id"] == 7,
        lambda row: (row["role"], row["user_id"]),
    ),
    "Orders in one of three states": Endpoint(
        "Order",
        lambda n: {"id": n, "state": ("new", "paid", "packed", "sent", "lost")[n % 5], "placed": _moment(n)},
        lambda row: row["state"] in ("new", "paid", "packed"),
        lambda row: (-_hours(row, "placed"), row["id"]),
    ),
    "Numbered pages of an admin table": Endpoint("User", _user, lambda row: True, _id),
    "Soft-deleted rows left out": Endpoint(
        "Item", _item, lambda row: row["deleted"] is None, lambda row: (row["name"], row["id"])
    ),
    "Of a category (many-to-many) by price": Endpoint(
        "Offer", _offer, lambda row: "lamps" in row["categories"], lambda row: (row["price"], row["id"])
    ),
}


def test_every_endpoint_of_the_page_is_tried():
    assert len(ENDPOINTS) == 12
    assert set(ENDPOINTS) == set(SECTIONS) - {"List endpoints", "What a list can't have"}


def _read_models(module: ModuleType) -> list[type[ReadModel[Any]]]:
    found = vars(module).values()
    return [
        each
        for each in found
        if isinstance(each, type) and issubclass(each, ReadModel) and each is not ReadModel
    ]


@pytest.mark.parametrize("heading", ENDPOINTS)
async def test_the_endpoint_shows_what_python_selects(heading, database_url, valkey, monkeypatch):
    endpoint = ENDPOINTS[heading]
    declared, _, asked = SECTIONS[heading][0].partition("\npage = ")
    name = re.search(r"await (\w+)\.page", asked)[1]  # type: ignore[index]
    module = ModuleType("endpoints_of_the_page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    handler = f"async def answer({name}, cursor, first, last):\n" + indent(f"return {asked}", "    ")
    exec("\n".join([IMPORTS, SECTIONS["List endpoints"][0], declared, handler]), vars(module))  # noqa: S102
    [read_model] = _read_models(module)
    model = getattr(module, endpoint.model)
    made: list[Any] = []

    class Queries:
        def __init__(self, found: read_model) -> None:  # type: ignore[valid-type]
            made.append(found)

    Queries.__init__.__annotations__["found"] = read_model

    def application(redis_url: str | None) -> Diptych:
        return Diptych(
            configured(database_url, redis_url),
            models=module.Base,
            handlers=[Queries],
            read_models=[read_model],
        )

    rows = [endpoint.row(n) for n in range(1, 151)]
    async with application(valkey.url) as app, application(None):
        await _add(app, module, model, rows)
        await answered_by(app, "redis")
        wanted = sorted(filter(endpoint.shown, rows), key=endpoint.order)
        for store, found in zip(("redis", "sql"), made, strict=True):
            assert (
                await _shown(module.answer, found, store, asked)
                == [{field: row[field] for field in read_model.document.__struct_fields__} for row in wanted][
                    slice(40, 60) if "offset=40" in asked else slice(None)
                ]
            )


async def _add(app: Diptych, module: ModuleType, model: Any, rows: list[Row]) -> None:
    """Adds the rows; those of categories by a session, which links them."""
    if model.__name__ != "Offer":
        await app.orm.create_all(model, rows)
        return
    async with app.orm.session() as session:
        made = {name: module.Category(name=name) for name in CATEGORIES}
        session.add_all(made.values())
        for row in rows:
            session.add(model(**{**row, "categories": [made[name] for name in row["categories"]]}))


async def _shown(answer: Any, found: Any, store: str, asked: str) -> list[Row]:
    """All rows that the endpoint shows, page by page; the total is their number."""
    shown: list[Row] = []
    cursor = None
    while True:
        page = await answer(found, cursor, FIRST, LAST)
        assert page.served.store == store
        body = msgspec.json.decode(page.body)
        assert ("total" in body) == ("count=True" in asked)
        shown += body["items"]
        cursor = body["next"]
        if cursor is None or "offset" in asked:
            assert "offset" in asked or body.get("total", len(shown)) == len(shown)
            return shown

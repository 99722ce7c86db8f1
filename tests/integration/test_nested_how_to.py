"""The page on nested fields: each example gives its JSON, from both stores of both databases, whoever changes it."""

from __future__ import annotations

import copy
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import msgspec
import pytest

from diptych import ConfigService, Diptych, Document, Query, ReadModel
from tests.catalogue import eventually
from tests.configuration import PATIENT_REDIS
from tests.integration.test_docs import ROOT, text_of
from tests.programs import Foreign

PAGE = ROOT / "docs" / "how-to" / "nested.md"
SECTIONS = {
    match[1]: (match[2], msgspec.json.decode(match[3]))
    for match in re.finditer(
        r"^### (.+?)\n.*?^```python complete\n(.*?)^```\n+^```json\n(.*?)^```",
        text_of(PAGE),
        re.DOTALL | re.MULTILINE,
    )
}

Json = dict[str, Any]


def _at(day: int, hour: int, month: int = 3) -> datetime:
    return datetime(2026, month, day, hour, tzinfo=UTC)


@dataclass
class Example:
    """An example of the page: its rows, and a change by another program.

    ``statements`` make ``changed`` of the document that the page shows.
    """

    key: Any
    rows: Callable[[Any], Iterable[Any]]
    statements: tuple[str, ...]
    changed: Callable[[Json], Json]


def _orders(page: Any) -> Iterable[Any]:
    lamp = page.Product(id=1, sku="LAMP", name="Desk lamp")
    bulb = page.Product(id=2, sku="BULB", name="Bulb")
    lines = [
        page.Line(number=1, product=lamp, quantity=3, price=Decimal("9.90")),
        page.Line(number=2, product=bulb, quantity=1, price=Decimal("0.10")),
    ]
    other = page.Line(number=1, product=lamp, quantity=1, price=Decimal("5.00"))
    yield page.Order(id=7, customer="Ann", lines=lines)
    yield page.Order(id=8, customer="Bob", lines=[other])


def _changed_order(shown: Json) -> Json:
    lamp, bulb = shown["lines"]
    lamp |= {"quantity": 4, "amount": "39.60", "product": {"sku": "LAMP", "name": "Lamp"}}
    return shown | {"lines": [lamp, bulb], "total": "39.70"}


def _users(page: Any) -> Iterable[Any]:
    admin, buyer, seller = (page.Role(id=n, name=name) for n, name in enumerate(("admin", "buyer", "seller")))
    lights = page.Team(id=3, name="Lights")
    yield page.Team(id=4, name="Desks")
    yield page.User(id=1, email="ann@example.com", team=lights, roles=[buyer, admin])
    yield page.User(id=2, email="bob@example.com", team=lights, roles=[seller])


def _dashboards(page: Any) -> Iterable[Any]:
    ann, bob, eve = (page.Person(id=n, name=name) for n, name in enumerate(("Ann", "Bob", "Eve"), 1))
    runs = [
        page.Run(started=_at(2, 6), state=page.State.FAILED),
        page.Run(started=_at(1, 6), state=page.State.DONE),
    ]
    yield page.Dashboard(id=1, title="Sales", owners=[bob, ann], runs=runs)
    yield page.Dashboard(id=2, title="Stock", owners=[eve], runs=[])


def _tickets(page: Any) -> Iterable[Any]:
    ann, bob = page.Person(id=1, name="Ann"), page.Person(id=2, name="Bob", avatar="/bob.png")
    comments = [
        page.Comment(id=1, written=date(2026, 3, 1), text="When?", author=bob),
        page.Comment(id=2, written=date(2026, 3, 2), text="Which bulb?", author=bob),
        page.Comment(id=3, written=date(2026, 3, 3), text="Same here", author=None),
        page.Comment(id=4, written=date(2026, 3, 4), text="Buy pills", author=None, deleted=True),
    ]
    yield page.Ticket(id=12, title="The lamp flickers", reporter=ann, comments=comments)


def _changed_ticket(shown: Json) -> Json:
    bulb = shown["comments"][1] | {"author": {"name": "Robert", "avatar": "/bob.png"}}
    when = {"written": "2026-03-01", "text": "When?", "author": bulb["author"]}
    return shown | {"assignee": "Robert", "comments": [bulb, when], "commentCount": 2}


def _playlists(page: Any) -> Iterable[Any]:
    what = page.Track(id=1, title="So What", seconds=562, artist=page.Artist(id=1, name="Miles Davis"))
    naima = page.Track(id=2, title="Naima", seconds=261, artist=page.Artist(id=2, name="John Coltrane"))
    entries = [
        page.Entry(id=n, position=at, track=track)
        for n, at, track in ((1, 3, what), (2, 1, what), (3, 2, naima))
    ]
    yield page.Playlist(id=5, name="Evening", entries=entries)


def _changed_playlist(shown: Json) -> Json:
    first, second, _ = shown["entries"]
    first["track"]["artist"] = "Miles"
    return shown | {"length": 2, "entries": [second | {"position": 1}, first | {"position": 2}]}


def _categories(page: Any) -> Iterable[Any]:
    home = page.Category(id=1, name="Home")
    lamps = page.Category(id=2, name="Lamps", parent=home)
    desk = page.Category(id=3, name="Desk lamps", parent=lamps)
    desk.children = [page.Category(id=n, name=name) for n, name in ((4, "With clamp"), (5, "LED"))]
    yield page.Category(id=6, name="Office")
    yield desk


def _recipes(page: Any) -> Iterable[Any]:
    flour, eggs, salt = (page.Ingredient(id=n, name=name) for n, name in enumerate(("Flour", "Eggs", "Salt")))
    uses = [
        page.Use(ingredient=salt, position=3),
        page.Use(ingredient=eggs, position=2, amount=Decimal(2)),
        page.Use(ingredient=flour, position=1, amount=Decimal(125), unit="g"),
    ]
    steps = [
        page.Step(number=2, text="Fry.", minutes=20),
        page.Step(number=1, text="Whisk everything.", minutes=5),
    ]
    yield page.Recipe(id=1, title="Pancakes", servings=2, uses=uses, steps=steps)


def _changed_recipe(shown: Json) -> Json:
    flour, eggs, _ = shown["ingredients"]
    steps = ["Whisk everything.", "Rest.", "Fry."]
    return shown | {
        "yields": "1 serving",
        "minutes": 55,
        "ingredients": [flour | {"name": "Wheat"}, eggs],
        "steps": steps,
    }


def _accounts(page: Any) -> Iterable[Any]:
    rows = [
        (1, date(2026, 2, 1), "Opening", "999999999999.80"),
        (2, date(2026, 2, 1), "Interest", "0.10"),
        (4, date(2026, 3, 2), "Cash", "0.20"),
        (3, date(2026, 3, 1), "House", "-99999999999.80"),
    ]
    bookings = [
        page.Booking(id=n, booked=day, text=text, amount=Decimal(amount)) for n, day, text, amount in rows
    ]
    yield page.Account(id=1, iban="DE02120300000000202051", bookings=bookings)


def _changed_account(shown: Json) -> Json:
    newest = {"booked": "2026-03-05", "text": "Fee", "amount": "-0.30"}
    return shown | {
        "balance": "900000000000.00",
        "spent": "-99999999000.10",
        "newest": [newest, shown["newest"][0]],
    }


def _chats(page: Any) -> Iterable[Any]:
    ann, bob = page.Person(id=1, name="Ann"), page.Person(id=2, name="Bob")
    yield page.Chat(
        id=9,
        title="Dinner",
        members=[ann, bob],
        messages=[
            page.Message(id=1, sender=ann, sent=_at(2, 17), text="Hungry?", read=True),
            page.Message(id=2, sender=bob, sent=_at(2, 18), text="Yes"),
            page.Message(id=3, sender=bob, sent=_at(2, 18).replace(minute=30), text="At eight?"),
        ],
    )
    yield page.Chat(id=10, title="Work")


def _packages(page: Any) -> Iterable[Any]:
    files = [page.File(name="lamp-1.1.whl", bytes=1500), page.File(name="lamp-1.1.tar.gz", bytes=2000)]
    releases = [
        page.Release(id=1, version="1.0", published=_at(1, 12, month=1)),
        page.Release(id=2, version="1.1", published=_at(1, 12, month=2), files=files),
        page.Release(id=3, version="1.2", published=_at(1, 12), yanked=True),
    ]
    yield page.Package(name="lamp", summary="Switches lights", releases=releases)


EXAMPLES = {
    "An order with lines, products and total": Example(
        7,
        _orders,
        (
            "UPDATE products SET name = 'Lamp' WHERE id = 1",
            "UPDATE order_lines SET quantity = 4 WHERE order_id = 7 AND number = 1",
        ),
        _changed_order,
    ),
    "A user with team and roles": Example(
        1,
        _users,
        (
            "UPDATE teams SET name = 'Light' WHERE id = 3",
            "DELETE FROM user_roles WHERE user_id = 1 AND role_id = 0",
            "INSERT INTO user_roles (user_id, role_id) VALUES (1, 2)",
        ),
        lambda shown: shown | {"team": {"id": 3, "name": "Light"}, "roles": ["buyer", "seller"]},
    ),
    "A dashboard with owners and last run": Example(
        1,
        _dashboards,
        (
            "UPDATE people SET name = 'Anna' WHERE id = 1",
            "INSERT INTO dashboard_owners (dashboard_id, person_id) VALUES (1, 3)",
            "UPDATE runs SET dashboard_id = 2 WHERE state = 'FAILED'",
        ),
        lambda shown: {
            "title": "Sales",
            "owners": [{"id": 1, "name": "Anna"}, {"id": 2, "name": "Bob"}, {"id": 3, "name": "Eve"}],
            "last_run": {"started": "2026-03-01T06:00:00Z", "state": "done"},
            "last_started": "2026-03-01T06:00:00Z",
            "failures": 0,
        },
    ),
    "A ticket with its comments and their authors": Example(
        12,
        _tickets,
        (
            "UPDATE comments SET deleted = TRUE WHERE id = 3",
            "UPDATE people SET name = 'Robert' WHERE id = 2",
            "UPDATE tickets SET assignee_id = 2",
        ),
        _changed_ticket,
    ),
    "A playlist in order": Example(
        5,
        _playlists,
        (
            "DELETE FROM playlist_entries WHERE id = 1",
            "UPDATE playlist_entries SET position = 3 - position",
            "UPDATE artists SET name = 'Miles' WHERE id = 1",
        ),
        _changed_playlist,
    ),
    "A category with its path of parents": Example(
        3,
        _categories,
        (
            "UPDATE categories SET parent_id = 6 WHERE id = 2",
            "UPDATE categories SET name = 'Offices' WHERE id = 6",
            "UPDATE categories SET parent_id = NULL WHERE id = 4",
        ),
        lambda shown: {
            "name": "Desk lamps",
            "parent": {"id": 2, "name": "Lamps", "parent": {"id": 6, "name": "Offices", "parent": None}},
            "children": ["LED"],
        },
    ),
    "A recipe with ingredients and steps": Example(
        1,
        _recipes,
        (
            "UPDATE recipes SET servings = 1",
            "UPDATE ingredients SET name = 'Wheat' WHERE id = 0",
            "DELETE FROM recipe_ingredients WHERE ingredient_id = 2",
            "UPDATE recipe_steps SET number = 3 WHERE number = 2",
            "INSERT INTO recipe_steps (recipe_id, number, text, minutes) VALUES (1, 2, 'Rest.', 30)",
        ),
        _changed_recipe,
    ),
    "An account with exact balance": Example(
        "DE02120300000000202051",
        _accounts,
        (
            "INSERT INTO bookings (id, account_id, booked, text, amount) VALUES (5, 1, '2026-03-05', 'Fee', -0.30)",
            "UPDATE bookings SET amount = -99999998999.80 WHERE id = 3",
            "UPDATE bookings SET amount = 999999998999.80 WHERE id = 1",
        ),
        _changed_account,
    ),
    "A chat with its last message and unread count": Example(
        9,
        _chats,
        (
            "UPDATE messages SET chat_id = 10 WHERE id = 3",
            "UPDATE messages SET read = TRUE WHERE id = 2",
            "UPDATE people SET name = 'Rob' WHERE id = 2",
        ),
        lambda shown: {
            "title": "Dinner",
            "members": ["Ann", "Rob"],
            "last": {"sender": "Rob", "sent": "2026-03-02T18:00:00Z", "text": "Yes"},
            "unread": 0,
        },
    ),
    "A package with its latest release": Example(
        "lamp",
        _packages,
        (
            "DELETE FROM files WHERE release_id = 2 AND bytes = 1500",
            "DELETE FROM releases WHERE id = 3",
            "UPDATE releases SET version = '1.1.0' WHERE id = 2",
        ),
        lambda shown: (
            shown
            | {
                "releases": 2,
                "latest": shown["latest"]
                | {
                    "version": "1.1.0",
                    "bytes": 2000,
                    "files": [{"name": "lamp-1.1.tar.gz", "bytes": 2000}],
                },
            }
        ),
    ),
}


def test_every_example_of_the_page_is_tried():
    assert len(SECTIONS) == text_of(PAGE).count("```json") == 10
    assert SECTIONS.keys() == EXAMPLES.keys()


class Get(Query[Document[Any]]):
    key: Any


def _handler(read_model: type[ReadModel[Any]]) -> type:
    class Queries:
        def __init__(self, documents: ReadModel[Any]) -> None:
            self._documents = documents

        async def get(self, query: Get) -> Document[Any]:
            return await self._documents.get(query.key)

    Queries.__init__.__annotations__["documents"] = read_model
    return Queries


@pytest.fixture(params=EXAMPLES)
def title(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def page(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the block of an example declares."""
    file = tmp_path / "example.py"
    file.write_text(SECTIONS[title][0], "utf-8")
    spec = spec_from_file_location("an_example_of_the_page", file)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def apps(page: Any, database_url: str, valkey: Any) -> AsyncIterator[dict[str, Diptych]]:
    """The example twice on one database: answered from Redis, and from SQL."""
    (model,) = (
        found
        for found in vars(page).values()
        if isinstance(found, type) and issubclass(found, ReadModel) and found is not ReadModel
    )

    def app(redis_url: str | None) -> Diptych:
        values = {**PATIENT_REDIS, "lease_ms": 3000, "database_url": database_url, "redis_url": redis_url}
        config = ConfigService(environ={}, **values)
        return Diptych(config, models=page.Base, handlers=[_handler(model)], read_models=[model])

    async with app(valkey.url) as redis, app(None) as sql:
        yield {"redis": redis, "sql": sql}


async def _gives(app: Diptych, store: str, key: Any, shown: Json) -> None:
    """Waits until this store answers with this document: Redis has it a pass later."""
    body = msgspec.json.encode(shown)
    last: Any = None

    async def does() -> bool:
        nonlocal last
        last = await app.ask(Get(key))
        return bool(last.served.store == store and last.body == body)

    try:
        await eventually(does, store)
    except AssertionError:
        assert (last.served.store, msgspec.json.decode(last.body or b"null")) == (store, shown)
        raise


async def test_an_example_of_the_page_gives_its_json_and_notices_a_program_beside_it(
    title: str, page: Any, apps: dict[str, Diptych], database_url: str, caplog: pytest.LogCaptureFixture
):
    said = [record.getMessage() for record in caplog.get_records("setup")]
    assert [message for message in said if "no index serves the fields" in message] == []
    example, shown = EXAMPLES[title], SECTIONS[title][1]
    async with apps["redis"].orm.session() as session:
        session.add_all(example.rows(page))
    for store, app in apps.items():
        await _gives(app, store, example.key, shown)
    changed = example.changed(copy.deepcopy(shown))
    assert changed != shown
    program = Foreign(database_url)
    await program.runs(*example.statements)
    await program.close()
    for store, app in apps.items():
        await _gives(app, store, example.key, changed)

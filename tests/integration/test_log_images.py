"""``log_images``: what goes into the images of the change log, and what is kept out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, ORMService, ReadModel, WiringError
from tests.catalogue import eventually
from tests.configuration import configured
from tests.servers import RedisServer


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(50), unique=True)
    city: Mapped[str | None] = mapped_column(sa.String(50))
    password: Mapped[str] = mapped_column(sa.String(50))


class UserDocument(msgspec.Struct):
    name: str
    city: str | None


class UserReadModel(ReadModel[User]):
    key = User.name
    document = UserDocument


class Users:
    """So that the application has the read model at hand."""

    users: Any = None

    def __init__(self, users: UserReadModel) -> None:
        Users.users = users


def application(database_url: str, redis_url: str | None, images: Any) -> Diptych:
    config = configured(database_url, redis_url)
    return Diptych(
        config, models=Base, handlers=[Users], read_models=[UserReadModel], log_images={User: images}
    )


async def log_of(orm: ORMService) -> list[Any]:
    async with orm.database.reader.connect() as connection:
        return list(await connection.execute(sa.text("SELECT * FROM diptych_log ORDER BY position")))


async def _change(orm: ORMService) -> None:
    await orm.create(User, name="Ann", city="Bonn", password="secret 1")
    await orm.update(User, "Ann", "name", city="Graz", password="secret 2")
    await orm.create_all(User, [{"name": name, "password": "secret 3"} for name in ("Bob", "Cy")])
    await orm.delete(User, "Bob", "name")


@pytest.fixture(params=["key", [User.city], ["name", "city"]], ids=["key", "a column", "names"])
def images(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
async def reading(database_url: str, valkey: RedisServer, images: Any) -> AsyncIterator[Diptych]:
    async with application(database_url, valkey.url, images) as app:
        yield app


async def test_what_is_left_out_is_nowhere_in_the_log(database_url: str, images: Any):
    async with application(database_url, None, images) as app:
        await _change(app.orm)
        logged = await log_of(app.orm)
    assert "secret" not in str(logged)
    assert [row.kind for row in logged] == ["created", "updated", "created", "created", "deleted"]
    assert [msgspec.json.decode(row.key)["name"] for row in logged] == ["Ann", "Ann", "Bob", "Cy", "Bob"]
    assert msgspec.json.decode(logged[1].old_key)["name"] == "Ann"
    if images == "key":
        assert {(row.version, row.image) for row in logged} == {(2, None)}
    else:
        expected = {"city": "Graz"} if len(images) == 1 else {"name": "Ann", "city": "Graz"}
        assert msgspec.json.decode(logged[1].image) == expected
        assert {row.version for row in logged} == {1}


async def test_read_models_are_as_fresh_as_with_whole_images(
    database_url: str, reading: Diptych, images: Any
):
    """By commands of this process, and by those of one without Redis, whose changes a pass brings in."""

    async def of(name: str) -> tuple[str, str | None] | None:
        found = await Users.users.get(name)
        document = found.decode()
        return None if document is None else (found.served.store, document.city)

    async def redis_answers() -> bool:
        return await of("Ann") == ("redis", "Bonn")

    await reading.orm.create(User, name="Ann", city="Bonn", password="secret")
    users = Users.users
    await eventually(redis_answers, "Redis answers")
    await reading.orm.update(User, "Ann", "name", city="Graz")
    assert await of("Ann") in (("redis", "Graz"), ("sql", "Graz"))
    async with application(database_url, None, images) as other:
        Users.users = users
        await other.orm.update(User, "Ann", "name", city="Wien")
        assert (await of("Ann") or ("", ""))[1] == "Wien"
        await other.orm.update(User, "Ann", "name", name="Eve")
        assert await of("Ann") is None
        assert (await of("Eve") or ("", ""))[1] == "Wien"


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (
            {User: ["pasword"]},
            "log_images: User has no column pasword; its columns are id, name, city, password",
        ),
        ({User: "none"}, 'log_images: User must have "all", "key" or a list of columns, such as'),
        ({dict: "key"}, "is not a mapped class"),
    ],
)
async def test_mistakes_are_told_at_the_start(sqlite_url: str, images: Any, problem: str):
    config = ConfigService(environ={}, database_url=sqlite_url)
    with pytest.raises(WiringError, match=problem):
        await Diptych(config, models=Base, handlers=[], log_images=images).start()

"""Values as the application's own engine loads them, in both stores."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy.dialects.postgresql import INET, JSONB
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diptych import ConfigService, Diptych, ReadModel
from tests.catalogue import answered_by
from tests.configuration import PATIENT_REDIS
from tests.servers import RedisServer


class Base(DeclarativeBase):
    pass


class Host(Base):
    __tablename__ = "hosts"

    id: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(INET)
    data: Mapped[Any] = mapped_column(JSONB)


class HostDocument(msgspec.Struct):
    id: int
    address: str
    data: Any


class Hosts(ReadModel[Host]):
    key = Host.id
    document = HostDocument


made: list[Hosts] = []


class Handlers:
    def __init__(self, hosts: Hosts) -> None:
        made.append(hosts)


async def test_both_stores_have_values_as_the_engine_loads_them(postgres_url: str, valkey: RedisServer):
    """★ A document that a command has written would differ from the one that a query or a rebuild makes."""

    def application(redis_url: str | None) -> Diptych:
        engine = create_async_engine(
            postgres_url.replace("postgresql://", "postgresql+asyncpg://"),
            json_deserializer=lambda text: json.loads(text, parse_float=Decimal),
            native_inet_types=False,
        )
        config = ConfigService(environ={}, redis_url=redis_url, **PATIENT_REDIS)
        return Diptych(config, models=Base, handlers=[Handlers], read_models=[Hosts], engine=engine)

    async with application(valkey.url) as redis, application(None) as sql:
        of_redis, of_sql = made
        await redis.orm.create(Host, id=1, address="10.0.0.1", data={"weight": 1.5})
        await answered_by(redis, "redis")
        written = await of_redis.get(1)
        assert (written.served.store, written.body) == ("redis", (await of_sql.get(1)).body)
        await redis.rebuild(Hosts)
        await answered_by(redis, "redis")
        rebuilt = await of_redis.get(1)
        assert (rebuilt.served.store, rebuilt.body) == ("redis", written.body)
        assert written.decode() == HostDocument(1, "10.0.0.1", {"weight": "1.5"})
        engines = [redis.orm.database.writer, sql.orm.database.writer]
    for engine in engines:
        await engine.dispose()

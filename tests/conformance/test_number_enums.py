"""Enums whose members stand for whole numbers, in documents and in nested ones, from both stores."""

from __future__ import annotations

import enum
from typing import Any, ClassVar

import msgspec
import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from diptych import Diptych, ReadModel, by, computed, count, field, many, maximum, one
from tests.catalogue import answered_by
from tests.configuration import configured


class Base(DeclarativeBase):
    pass


class Rank(enum.Enum):
    LOW = 1
    HIGH = 7


class Stored(sa.types.TypeDecorator[Rank]):
    """Stores the numbers."""

    impl = sa.Integer
    cache_ok = True

    def process_bind_param(self, value: Rank | None, dialect: sa.Dialect) -> Any:
        return None if value is None else value.value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Rank | None:
        return None if value is None else Rank(value)


class Task(Base):
    __tablename__ = "tasks"

    id: Mapped[int] = mapped_column(primary_key=True)
    rank: Mapped[Rank]
    stored: Mapped[Rank | None] = mapped_column(Stored)
    steps: Mapped[list[Step]] = relationship()


class Step(Base):
    __tablename__ = "steps"

    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(sa.ForeignKey(Task.id), index=True)
    rank: Mapped[Rank | None]


class StepDocument(msgspec.Struct):
    id: int
    rank: Rank | None


class TaskDocument(msgspec.Struct):
    id: int
    rank: Rank
    stored: Rank | None
    steps: list[StepDocument]
    ranks: list[Rank | None]
    first: int | None
    most: Rank | None
    high: int
    same: Rank


class Tasks(ReadModel[Task]):
    key = Task.id
    document = TaskDocument
    lists = (by(Task.rank), by(field("most").desc().nulls_last(), name="most"))
    nested: ClassVar = {
        "steps": many(Task.steps),
        "ranks": many(Task.steps, Step.rank),
        "first": one(Task.steps, Step.rank, order=Step.id),
        "most": maximum(Task.steps, Step.rank),
        "high": count(Task.steps, where=Step.rank == Rank.HIGH),
        "same": computed(lambda rank: rank, Task.rank),
    }


class Handlers:
    made: ClassVar[list[Tasks]] = []

    def __init__(self, tasks: Tasks) -> None:
        self.made.append(tasks)


def _application(database_url: str, redis_url: str | None) -> Diptych:
    config = configured(database_url, redis_url)
    return Diptych(config, models=Base, handlers=[Handlers], read_models=[Tasks])


async def test_they_go_out_as_their_numbers(database_url, valkey):
    async with _application(database_url, valkey.url) as app, _application(database_url, None):
        models = Handlers.made[-2:]
        await app.orm.create(Task, id=1, rank=Rank.HIGH, stored=Rank.LOW)
        await app.orm.create(Task, id=2, rank=Rank.LOW)
        await app.orm.create_all(
            Step,
            [{"id": n, "task_id": 1, "rank": rank} for n, rank in enumerate((Rank.LOW, Rank.HIGH, None))],
        )
        await app.catch_up()
        await answered_by(app, "redis")
        steps = [{"id": 0, "rank": 1}, {"id": 1, "rank": 7}, {"id": 2, "rank": None}]
        of_steps = {"steps": steps, "ranks": [1, 7, None], "first": 1, "most": 1, "high": 1}
        first = {"id": 1, "rank": 7, "stored": 1, **of_steps, "same": 7}
        nothing: dict[str, Any] = {"steps": [], "ranks": [], "first": None, "most": None, "high": 0}
        second = {"id": 2, "rank": 1, "stored": None, **nothing, "same": 1}
        stores = []
        for model in models:
            found = await model.get(1)
            stores.append(found.served.store)
            assert found.body == msgspec.json.encode(first)
            shown = found.decode()
            assert shown is not None
            assert shown.most is Rank.LOW  # by name, as lists sort
            for name, where in (("most", {}), ("rank", {"rank": [Rank.LOW, Rank.HIGH]})):
                page = msgspec.json.decode((await model.page(name, where=where)).body)
                assert page["items"] == [first, second]
        assert stores == ["redis", "sql"]

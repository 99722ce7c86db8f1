"""The command ``verify``: read models in Redis compared with SQL while writes go on, and repaired."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from diptych.cli.commands.migrate import check_file, database_of
from diptych.cli.output import print_json
from diptych.cli.progress import Tell, shown
from diptych.fence.fence import Fence
from diptych.hinge.replica import Replica
from diptych.hinge.side import redis_service
from diptych.hinge.verify.differences import (
    EXTRA,
    EXTRA_ENTRY,
    IMPOSSIBLE,
    MISCOUNTED,
    MISSING,
    NO_ENTRY,
    OTHER,
    OTHER_RECORD,
    Difference,
    Finding,
)
from diptych.hinge.verify.generation import NotComparableError, ReplacedError
from diptych.hinge.verify.verifier import NAMED, Verified, Verifier
from diptych.read.panel import mapped_classes, open_panels
from diptych.read.store.store import RedisStore
from diptych.redis import WrongContentsError
from diptych.sql.failures import translated
from diptych.sql.registry import EntityRegistry
from diptych.sql.schema.application import check_tables

if TYPE_CHECKING:
    from diptych.app import Diptych
    from diptych.read.model import ReadModel

Models = Sequence["type[ReadModel[Any]]"]

_PATIENCE_S = 2.0
_WORDS = {
    MISSING: "the document is missing",
    EXTRA: "there is a document, but no row",
    OTHER: "the document is not that of the row",
    "missing-copy": "the copy at {address} is missing",
    "extra-copy": "there is a copy at {address}, but no row",
    "other-copy": "the copy at {address} is not that of the row",
    NO_ENTRY: "its entry in the list {list_name} is missing",
    EXTRA_ENTRY: "the list {list_name} has an entry too many of it",
    OTHER_RECORD: "its list entries are not recorded as they are",
    IMPOSSIBLE: "its stamp is of a later change than there is: it would refuse every change to come",
    MISCOUNTED: "it is not counted among the set-aside rows as it should be",
}
"""The kinds of differences, in words."""


class ReadModelReport(msgspec.Struct, omit_defaults=True):
    """The outcome for a read model, as ``--json`` shows it."""

    documents: int | None = None
    differences: int | None = None
    left: int | None = None
    undecided: int | None = None
    seconds: float | None = None
    named: list[dict[str, Any]] | None = None
    problem: str | None = None


class Verification:
    """The verification of an application's read models, one after the other.

    ``tell`` writes a line for people. ``exit_code`` is 0 without differences (or if all of them were repaired), 1
    with some, and 2 if a read model could not be compared and no other has a difference.
    """

    def __init__(self, application: Diptych, *, repair: bool, tell: Callable[[str], None] | None) -> None:
        self._application = application
        self._repair = repair
        self._tell = tell
        self.reports: dict[str, ReadModelReport] = {}

    @property
    def exit_code(self) -> int:
        """The exit code of the process."""
        reports = self.reports.values()
        if any(each.left if self._repair else each.differences for each in reports):
            return 1
        return 2 if any(each.problem for each in reports) else 0

    def whole(self) -> dict[str, Any]:
        """Returns the outcome, as ``--json`` shows it."""
        sums = {
            name: sum(getattr(report, name) or 0 for report in self.reports.values())
            for name in ("differences", "left")[: 1 + self._repair]
        }
        return {"ok": self.exit_code == 0, **sums, "read_models": self.reports}

    async def run(self, models: Models) -> None:
        """Verifies these read models. Raises the errors of settings and of both stores."""
        async with self._opened(models) as verifier_of:
            for model in models:
                name = model.__name__
                with self._shown(name) as tell:
                    try:
                        verified = await verifier_of(model, tell).verify()
                    except (NotComparableError, ReplacedError) as error:
                        self.reports[name] = ReadModelReport(problem=str(error))
                        verified = None
                    except WrongContentsError as error:
                        problem = (
                            f"{name} can't be compared: {error}. Build it anew: `diptych rebuild {name}`"
                        )
                        self.reports[name] = ReadModelReport(problem=problem)
                        verified = None
                if verified is not None:
                    self.reports[name] = _report_of(verified, repair=self._repair)
                self._print(name, verified)

    @contextlib.contextmanager
    def _shown(self, name: str) -> Any:
        if self._tell is None:
            yield lambda _steps: None
            return
        with shown(name, "comparing", "steps") as tell:
            yield tell

    @contextlib.asynccontextmanager
    async def _opened(self, models: Models) -> AsyncIterator[Callable[[type, Tell], Verifier]]:
        """Opens both stores, without a keeper: nothing is written but by a repair."""
        settings = self._application.config.settings
        database = await database_of(self._application)
        redis = redis_service(settings.redis_url or "", settings)
        try:
            check_file(database)
            entities = EntityRegistry(database.name)
            mapped = dict.fromkeys(mapped_classes(models))
            with translated(database):
                await check_tables(database, [entities.of(model).mapper for model in mapped], set(mapped))
            panels = await open_panels(models, database, entities, settings)
            fence = Fence(database, entities.by_table, hints=settings.capture_hints)
            await redis.probe()
            redis.check_available()

            def verifier(model: type, tell: Tell) -> Verifier:
                panel = next(panel for panel in panels if panel.model is model)
                store = RedisStore(panel.compiled, redis)
                batch_size = settings.rebuild_batch_size
                replica = Replica(panel.compiled, panel.rows, store, redis, fence, batch_size=batch_size)
                return Verifier(replica, redis, fence, settings.lease_s, repair=self._repair, tell=tell)

            yield verifier
        finally:
            await redis.close()
            await database.close()
            # Stopped in the midst of a statement, the driver ends its connection in a task of its own.
            if others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others, timeout=_PATIENCE_S)

    def _print(self, name: str, verified: Verified | None) -> None:
        if self._tell is None:
            return
        report = self.reports[name]
        if verified is None:
            self._tell(report.problem or "")
            return
        for difference in verified.named:
            self._tell(f"{name}: {_shown_text(difference.key)}: {_worded(difference)}")
        if verified.differences > len(verified.named):
            more = verified.differences - len(verified.named)
            self._tell(f"{name}: … and {more} more: at most {NAMED} are named")
        if verified.undecided:
            self._tell(f"{name}: {verified.undecided} documents were changed each time they were looked at")
        self._tell(f"{name}: {self._summary(verified)}, in {verified.seconds:.1f} s")

    def _summary(self, verified: Verified) -> str:
        count = verified.differences
        what = "no differences" if not count else f"{count} difference{'s' * (count > 1)}"
        mended = f", {count - verified.left} of them repaired" if self._repair and count else ""
        return f"{what} among {verified.documents} documents{mended}"


def _report_of(verified: Verified, *, repair: bool) -> ReadModelReport:
    return ReadModelReport(
        documents=verified.documents,
        differences=verified.differences,
        left=verified.left if repair else None,
        undecided=verified.undecided,
        seconds=round(verified.seconds, 1),
        named=[_as_json(difference) for difference in verified.named],
    )


def _as_json(difference: Difference) -> dict[str, Any]:
    findings = [
        {"what": finding.what, **({"list": finding.list_name} if finding.list_name else {})}
        for finding in difference.findings
    ]
    address = {"address": difference.address} if difference.address else {}
    return {"key": difference.key, **address, "differs": findings}


def _worded(difference: Difference) -> str:
    def words(finding: Finding) -> str:
        return _WORDS[finding.what].format(address=difference.address, list_name=finding.list_name)

    return "; ".join(map(words, difference.findings))


def _shown_text(text: str) -> str:
    """Returns a text with what would move the cursor of a terminal, or hide, written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def verify_read_models(application: Diptych, models: Models, *, repair: bool, as_json: bool) -> int:
    """Verifies read models, prints the outcome and returns the exit code of the process."""
    verification = Verification(application, repair=repair, tell=None if as_json else print)
    asyncio.run(verification.run(models))
    if as_json:
        print_json(verification.whole())
    return verification.exit_code

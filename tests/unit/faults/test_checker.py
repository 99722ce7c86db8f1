"""The checker of the fault tests finds each kind of anomaly in histories made by hand, and no other."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tests.acceptance.faults.asking import fault_of_numbers
from tests.acceptance.faults.checker import Ending, check, check_end
from tests.acceptance.faults.history import (
    AUDIT,
    CATCH_UP,
    FRONT,
    FRONT_OWNERS,
    ITEM,
    NESTED,
    OPEN_ITEM,
    OWNER,
    PROCESS,
    UNSEEN,
    Begin,
    End,
    Entry,
    Failure,
    Fault,
    Get,
    History,
    LogRow,
    Page,
    Reader,
    Record,
    Saw,
    Writer,
)
from tests.acceptance.faults.models import OwnedValue, OwnerDocument
from tests.acceptance.faults.report import on_sql, summary, told_all
from tests.acceptance.faults.staleness import missed, staleness

OWNED_BY = 1


class Story:
    """A history as it is told: commands, reads and the log. A write's number is its value, too."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.log: list[LogRow] = []

    def write(
        self,
        number: int,
        kind: str,
        at: tuple[int, int],
        *,
        key: str = "a",
        to: str | None = None,
        outcome: str = "done",
        logged: bool = True,
        owner: int = OWNED_BY,
        saw: Sequence[Saw] = (),
        value: int | None = None,
    ) -> Story:
        """A command on an item from one time to another, with its row in the log."""
        self.records += [Begin(number, kind, [key], at[0])]
        if outcome != "cut":
            self.records += [End(number, outcome, at[1], saw=list(saw))]
        if logged:
            log_kind = {"add": "created", "delete": "deleted"}.get(kind, "updated")
            old = None if log_kind == "created" else key
            shown = number if value is None else value
            self.log.append(LogRow(len(self.log) + 1, ITEM, log_kind, old, to or key, shown, owner, number))
        return self

    def name_owner(
        self,
        number: int,
        at: tuple[int, int],
        *,
        kind: str = "updated",
        owner: int = OWNED_BY,
        outcome: str = "done",
    ) -> Story:
        """A command that names an owner."""
        self.records += [
            Begin(number, "rename owner", [str(owner)], at[0]),
            End(number, outcome, at[1], saw=[]),
        ]
        old = None if kind == "created" else str(owner)
        self.log.append(LogRow(len(self.log) + 1, OWNER, kind, old, str(owner), str(number), None, number))
        return self

    def told(self, number: int, saw: Saw, at: tuple[int, int], *, outcome: str = "nothing") -> Story:
        """A command that has changed nothing, and what its answer tells."""
        return self.write(number, "look", at, outcome=outcome, logged=False, saw=[saw])

    def get(self, value: int | None, at: tuple[int, int], *, key: str = "a", **more: Any) -> Story:
        """A read by key."""
        there: dict[str, Any] = {} if value is None else {"value": value, "owner": OWNED_BY, "found": key}
        self.records.append(Get(key, 1, *at, "redis", "", **(there | more)))
        return self

    def aside(self, at: tuple[int, int], *, key: str = "a") -> Story:
        """A read by key of which the answer is that the row does not fit."""
        self.records.append(Get(key, 1, *at, "none", "", is_aside=True))
        return self

    def page(
        self,
        entries: Sequence[tuple[str, int]],
        at: tuple[int, int],
        *,
        order: str = "key",
        after: tuple[str, int] | None = None,
        limit: int = 10,
        more: bool = False,
        set_aside: int = 0,
        **told: Any,
    ) -> Story:
        """A read of a list."""
        shown = [Entry(key, value, OWNED_BY) for key, value in entries]
        last = None if after is None else Entry(*after, OWNED_BY)
        self.records.append(Page(order, last, limit, 1, *at, "redis", "", more, shown, set_aside, **told))
        return self

    @property
    def history(self) -> History:
        return History.of(self.records, self.log)

    @property
    def kinds(self) -> list[str]:
        """What the checker finds."""
        return [anomaly.kind for anomaly in check(self.history)]


@pytest.fixture
def story() -> Story:
    """Item "a" was added as 1, acknowledged at 20, and changed to 2, acknowledged at 40."""
    return Story().write(1, "add", (10, 20)).write(2, "change", (30, 40))


# Documents


def test_a_read_may_show_the_newest_acknowledged_state(story):
    assert story.get(1, (21, 25)).get(2, (41, 42)).kinds == []


def test_a_read_that_overlaps_a_command_may_show_the_state_before_and_after_it(story):
    assert story.get(None, (15, 25)).get(1, (35, 45)).get(2, (31, 32)).kinds == []


def test_a_read_that_began_as_a_command_was_acknowledged_may_show_the_state_before(story):
    assert story.get(1, (40, 41)).kinds == []


def test_a_read_older_than_an_acknowledged_write_is_stale(story):
    assert story.get(1, (41, 42)).kinds == ["stale read"]


def test_not_found_after_an_acknowledged_add_is_a_missing_document(story):
    assert story.get(None, (21, 22)).kinds == ["missing document"]


def test_not_found_is_right_before_the_add_and_after_the_delete(story):
    story.write(3, "delete", (50, 60))
    assert story.get(None, (1, 2)).get(None, (55, 56)).get(None, (61, 62)).kinds == []


def test_not_found_is_right_while_a_delete_and_an_add_are_under_way(story):
    story.write(3, "delete", (50, 60)).write(4, "add", (61, 90))
    assert story.get(None, (70, 80)).get(4, (70, 80)).kinds == []
    assert story.get(None, (91, 92)).kinds == ["missing document"]


def test_a_document_that_is_read_after_its_acknowledged_deletion_is_resurrected(story):
    assert story.write(3, "delete", (50, 60)).get(2, (61, 62)).kinds == ["resurrected delete"]


def test_the_document_of_a_former_row_after_a_re_creation_is_stale(story):
    story.write(3, "delete", (50, 60)).write(4, "add", (61, 70))
    assert story.get(2, (71, 72)).kinds == ["stale read"]


def test_a_write_that_was_not_acknowledged_may_be_seen_or_not(story):
    story.write(3, "change", (50, 0), outcome="cut")
    assert story.get(3, (90, 91)).get(2, (92, 93)).get(3, (94, 95)).kinds == []


def test_an_unacknowledged_write_before_an_acknowledged_one_is_over(story):
    story.write(3, "change", (50, 60), outcome="unknown").write(4, "change", (61, 70))
    assert story.get(3, (65, 66)).kinds == []
    assert story.get(3, (71, 72)).kinds == ["stale read"]


def test_an_acknowledgement_out_of_the_order_of_the_log_does_not_take_a_read_back(story):
    story.write(3, "change", (50, 90)).write(4, "change", (55, 60))
    assert story.get(4, (91, 92)).kinds == []
    assert story.get(3, (91, 92)).kinds == ["stale read"]


def test_a_value_that_nobody_wrote_was_never_written(story):
    assert story.get(99, (41, 42)).kinds == ["value never written"]


def test_a_value_of_a_write_of_another_key_was_never_written_there(story):
    assert story.write(3, "add", (50, 60), key="b").get(3, (61, 62)).kinds == ["value never written"]


def test_a_value_with_the_owner_of_another_state_was_never_written(story):
    assert story.get(2, (41, 42), owner=7).kinds == ["value never written"]


@pytest.mark.parametrize("outcome", ["failed", "unknown"])
def test_a_value_that_was_rolled_back_must_not_be_read(story, outcome):
    story.write(3, "change nothing", (50, 60), outcome=outcome, logged=False)
    assert story.get(3, (55, 56)).kinds == ["value never committed"]


def test_a_value_read_before_its_command_was_sent(story):
    assert story.get(2, (25, 26)).kinds == ["value before its write"]


def test_the_document_of_another_key_is_a_crossed_reply(story):
    assert story.get(2, (41, 42), found="b").kinds == ["crossed reply"]


def test_a_renamed_item_is_gone_under_its_old_key_and_there_under_the_new(story):
    story.write(3, "rename", (50, 60), to="b")
    assert story.get(None, (61, 62)).get(3, (61, 62), key="b").kinds == []
    assert story.get(2, (61, 62)).kinds == ["resurrected delete"]
    assert story.get(None, (61, 62), key="b").kinds[1:] == ["missing document"]


# What was never acknowledged, and is behind another answer


def test_what_an_answer_tells_of_later_queries_must_show(story):
    story.write(3, "change", (50, 0), outcome="cut").told(4, Saw(ITEM, "a", 3, OWNED_BY), (61, 70))
    assert story.get(2, (65, 66)).get(3, (71, 72)).kinds == []
    assert story.get(2, (71, 72)).kinds == ["stale read"]


def test_so_must_they_what_an_error_tells_of(story):
    story.write(3, "delete", (50, 60)).write(4, "add", (61, 0), outcome="cut")
    story.told(5, Saw(ITEM, "a", is_told=False), (70, 80), outcome="failed")
    assert story.get(None, (75, 76)).get(4, (81, 82)).kinds == []
    assert story.get(None, (81, 82)).kinds == ["missing document"]


def test_that_nothing_was_found_tells_of_a_deletion(story):
    story.write(3, "delete", (50, 0), outcome="cut").told(4, Saw(ITEM, "a"), (61, 70))
    assert story.get(2, (71, 72)).kinds == ["resurrected delete"]


def test_that_nothing_was_found_tells_nothing_new_where_it_was_known(story):
    story.write(3, "delete", (50, 60)).write(4, "add", (61, 0), outcome="cut").told(
        5, Saw(ITEM, "a"), (62, 70)
    )
    assert story.get(None, (71, 72)).get(4, (71, 72)).kinds == []


def test_an_answer_that_never_came_tells_nothing(story):
    story.write(3, "change", (50, 0), outcome="cut")
    story.told(4, Saw(ITEM, "a", 3, OWNED_BY), (61, 70), outcome="unknown")
    assert story.get(2, (71, 72)).kinds == []


def test_who_takes_an_address_vouches_for_the_row_that_has_left_it(story):
    story.write(3, "rename", (50, 0), to="b", outcome="cut").write(4, "add", (61, 70))
    assert story.get(None, (65, 66), key="b").get(3, (71, 72), key="b").kinds == []
    assert story.get(None, (71, 72), key="b").kinds == ["missing document"]
    assert story.page([("a", 4)], (71, 72)).kinds[1:] == ["missing entry"]


def test_what_is_behind_an_answer_may_be_behind_several_commands_of_which_none_was_answered(story):
    story.write(3, "rename", (50, 0), to="b", outcome="cut").write(4, "add", (61, 0), outcome="cut")
    story.told(5, Saw(ITEM, "a", 4, OWNED_BY), (70, 80))
    assert story.get(None, (75, 76), key="b").kinds == []
    assert story.get(None, (81, 82), key="b").kinds == ["missing document"]


def test_the_version_before_vouches_for_its_own_changes_alone(story):
    story.write(3, "rename", (50, 0), to="b", outcome="cut").write(4, "add", (61, 0), outcome="cut")
    story.records.append(End(4, "done", 70))
    assert story.get(None, (71, 72), key="b").kinds == []
    assert story.get(None, (71, 72)).kinds == ["missing document"]


def test_an_answer_tells_of_an_owner_too(story):
    story.name_owner(5, (1, 2), kind="created").name_owner(6, (50, 60), outcome="unknown")
    story.told(7, Saw(OWNER, "1", "6"), (61, 70))
    assert story.get(2, (65, 66), joined=True, owner_name="5").kinds == []
    assert story.get(2, (71, 72), joined=True, owner_name="5").kinds == ["stale read"]


@pytest.mark.parametrize(
    "saw",
    [
        Saw(ITEM, "a", 99, OWNED_BY),  # nobody wrote that
        Saw(ITEM, "a", 1, OWNED_BY),  # it was over
        Saw(ITEM, "a"),  # it was there all the time
        Saw(ITEM, "b", is_told=False),  # it was free all the time
    ],
)
def test_an_answer_that_tells_what_was_not_so_is_impossible(story, saw):
    assert story.told(4, saw, (61, 70)).kinds == ["impossible answer"]


def test_an_anomaly_names_the_answer_that_makes_it_one(story):
    story.write(3, "change", (50, 0), outcome="cut").told(4, Saw(ITEM, "a", 3, OWNED_BY), (61, 70))
    assert "behind the answer to write 4" in told_all(check(story.get(2, (71, 72)).history), story.history)


def test_rows_of_the_audit_are_in_the_log_and_are_nobodys_document(story):
    story.write(4, "look", (61, 70), logged=False, saw=[Saw(ITEM, "a", 2, OWNED_BY)])
    assert story.kinds == ["lost write"]
    story.log.append(LogRow(3, AUDIT, "created", None, "1", "Item a: 2", None, 4))
    assert story.kinds == []
    story.name_owner(5, (71, 72), kind="created")
    assert list(check_end(story.log, _ending())) == []


# Open items: programs beside the application change them too, and have a lease until queries show that


GRACE = 100


class OpenStory(Story):
    """A history of open item "a", which the ledger tells."""

    def changed(
        self,
        number: int,
        at: tuple[int, int],
        *,
        kind: str = "update",
        grace: int = 0,
        key: str = "a",
        owner: int = OWNED_BY,
        outcome: str = "done",
        log_kind: str = "updated",
        value: int | None = None,
    ) -> OpenStory:
        """A change by a command, or, with a grace, by a program."""
        self.records += [
            Begin(number, kind, [key], at[0], OPEN_ITEM, grace),
            End(number, outcome, at[1], saw=[]),
        ]
        old = None if log_kind == "created" else key
        shown = number if value is None else value
        self.log.append(
            LogRow(len(self.log) + 1, OPEN_ITEM, log_kind, old, key, shown, owner, number),
        )
        return self

    def shown(self, value: int | None, at: tuple[int, int], **more: Any) -> OpenStory:
        """A read by key."""
        self.get(value, at, entity=OPEN_ITEM, **more)
        return self

    def caught_up(self, number: int, at: tuple[int, int]) -> OpenStory:
        """A call of ``catch_up``."""
        self.records += [
            Begin(number, CATCH_UP, [], at[0], OPEN_ITEM),
            End(number, "nothing", at[1], saw=[]),
        ]
        return self


@pytest.fixture
def open_story() -> OpenStory:
    """A command added "a" as 1, acknowledged at 20; a program changed it to 2 and had committed that at 40."""
    story = OpenStory().changed(1, (10, 20), log_kind="created")
    return story.changed(2, (30, 40), grace=GRACE)


def test_a_change_by_a_program_may_be_missed_for_a_lease(open_story):
    assert open_story.shown(1, (41, 42)).shown(1, (140, 141)).shown(2, (35, 36)).kinds == []


def test_a_change_by_a_program_that_is_missed_after_a_lease_is_stale(open_story):
    assert open_story.shown(1, (141, 142)).kinds == ["stale read"]
    assert "its time was over" in told_all(check(open_story.history), open_story.history)


def test_a_deletion_by_a_program_that_is_missed_after_a_lease_is_resurrected(open_story):
    open_story.changed(3, (50, 60), kind="delete", grace=GRACE, log_kind="deleted", value=2)
    assert open_story.shown(2, (160, 161)).shown(None, (161, 162)).kinds == []
    assert open_story.shown(2, (161, 162)).kinds == ["resurrected delete"]


def test_a_page_must_show_a_change_by_a_program_after_a_lease(open_story):
    for begun in (140, 141):
        entry = Entry("a", 1, OWNED_BY)
        open_story.records.append(
            Page("key", None, 10, 1, begun, begun + 1, "redis", "", False, [entry], 0, OPEN_ITEM)
        )
        assert open_story.kinds == (["stale entry"] if begun == 141 else [])


def test_a_command_by_a_session_that_is_missed_after_its_acknowledgement_is_stale(open_story):
    open_story.changed(3, (50, 60), kind="open: change")
    assert open_story.shown(2, (60, 61)).kinds == []
    assert open_story.shown(2, (61, 62)).kinds == ["stale read"]


def test_a_command_that_builds_on_the_change_of_a_program_vouches_for_it(open_story):
    open_story.changed(3, (50, 60), kind="open: delete", log_kind="deleted", value=2)
    assert open_story.shown(1, (61, 62)).kinds == ["resurrected delete"]


def test_what_an_answer_tells_of_a_programs_change_is_seen_from_then_on(open_story):
    open_story.told(3, Saw(OPEN_ITEM, "a", 2, OWNED_BY), (50, 60))
    assert open_story.shown(1, (60, 61)).kinds == []
    assert open_story.shown(1, (61, 62)).kinds == ["stale read"]


def test_a_command_vouches_for_the_tables_that_it_has_touched(open_story):
    """Another command has added "b" and changed the open item, in a transaction that nobody has answered for."""
    open_story.write(3, "add", (50, 0), key="b", outcome="cut")
    open_story.log.append(LogRow(len(open_story.log) + 1, OPEN_ITEM, "updated", "a", "a", 3, OWNED_BY, 3))
    open_story.write(4, "change", (61, 70), key="b")
    assert open_story.shown(2, (71, 72)).kinds == []
    assert open_story.get(3, (71, 72), key="b").kinds == ["stale read"]
    open_story.told(5, Saw(OPEN_ITEM, "a", 3, OWNED_BY), (73, 80))
    assert open_story.shown(2, (81, 82)).kinds == ["stale read", "stale read"]


def test_a_change_by_a_program_of_unknown_outcome_may_be_seen_or_not(open_story):
    open_story.changed(3, (50, 60), grace=GRACE, outcome="unknown")
    assert open_story.shown(3, (300, 301)).shown(2, (302, 303)).kinds == []


def test_what_a_program_took_back_is_never_seen(open_story):
    open_story.changed(3, (50, 60), grace=GRACE, outcome="failed")
    assert open_story.kinds == ["unwanted write"]
    open_story.log.pop()
    assert open_story.shown(3, (61, 62)).kinds == ["value never committed"]


def test_catching_up_vouches_for_what_programs_had_committed_before(open_story):
    open_story.caught_up(3, (45, 50)).shown(1, (50, 51))
    assert open_story.kinds == []
    assert open_story.shown(1, (51, 52)).kinds == ["stale read"]


def test_catching_up_does_not_vouch_for_what_was_committed_since(open_story):
    assert open_story.caught_up(3, (39, 50)).shown(1, (51, 52)).kinds == []


def test_nobody_vouches_for_what_no_trigger_has_seen_before_its_time(open_story):
    open_story.changed(3, (50, 60), kind=UNSEEN, grace=GRACE)
    open_story.caught_up(4, (61, 62)).told(5, Saw(OPEN_ITEM, "a", 3, OWNED_BY), (61, 62))
    assert open_story.shown(2, (160, 161)).kinds == []
    assert open_story.shown(2, (161, 162)).kinds == ["stale read"]


def test_a_value_that_comes_again_under_another_number_of_its_owner_may_be_any_of_them():
    story = OpenStory().changed(1, (10, 20), log_kind="created")
    story.changed(2, (30, 40), owner=2, value=1).changed(3, (50, 60), value=1)
    assert story.shown(1, (21, 22)).shown(1, (61, 62)).kinds == []
    assert story.shown(1, (45, 46)).kinds == ["stale read"]


def test_the_staleness_of_a_change_is_the_time_to_the_last_query_that_missed_it(open_story):
    open_story.changed(3, (50, 60), grace=GRACE)
    open_story.shown(1, (45, 46)).shown(1, (55, 56)).shown(2, (80, 81)).shown(3, (85, 86))
    history = open_story.history
    history.missed.update(missed(history))
    found = staleness([history])
    assert found.seconds == [15e-9, 20e-9]
    assert found.lease_s == GRACE / 1e9
    assert "2 changes by programs" in summary([history])


def test_a_change_that_no_query_has_missed_was_stale_for_no_time(open_story):
    assert missed(open_story.shown(2, (41, 42)).history) == {2: 0}


# Joined documents


def test_each_part_of_a_joined_document_must_be_new_enough(story):
    story.name_owner(5, (1, 2), kind="created").name_owner(6, (50, 60))
    assert story.get(2, (61, 62), joined=True, owner_name="6").kinds == []
    assert story.get(2, (55, 62), joined=True, owner_name="5").kinds == []
    assert story.get(2, (61, 62), joined=True, owner_name="5").kinds == ["stale read"]


def test_an_item_must_be_joined_with_its_own_owner(story):
    story.name_owner(5, (1, 2), kind="created").name_owner(6, (3, 4), kind="created", owner=2)
    assert story.get(2, (61, 62), joined=True, owner_name="6").kinds == ["value never written"]
    assert story.get(2, (61, 62), joined=True, owner_name=None).kinds[1:] == ["value never written"]


# Lists


@pytest.fixture
def listed() -> Story:
    """Items a, b and c as 1, 2 and 3, all acknowledged at 20."""
    story = Story()
    for number, key in enumerate("abc", 1):
        story.write(number, "add", (10, 20), key=key)
    return story


def test_pages_that_show_what_is_there(listed):
    listed.page([("a", 1), ("b", 2)], (30, 31), limit=2, more=True)
    listed.page([("c", 3)], (32, 33), after=("b", 2), limit=2)
    assert listed.page([], (34, 35), after=("c", 3)).kinds == []


def test_an_acknowledged_item_must_be_on_a_page_that_covers_it(listed):
    assert listed.page([("a", 1), ("c", 3)], (30, 31)).kinds == ["missing entry"]


def test_the_last_item_must_be_on_the_last_page(listed):
    assert listed.page([("a", 1), ("b", 2)], (30, 31)).kinds == ["missing entry"]


def test_an_item_need_not_be_on_a_page_while_it_is_added_or_deleted(listed):
    listed.write(4, "delete", (40, 50), key="b")
    listed.page([("a", 1), ("c", 3)], (45, 46)).page([("a", 1), ("b", 2), ("c", 3)], (45, 46))
    assert listed.page([], (15, 16)).kinds == []


def test_a_deleted_item_must_not_be_on_a_page(listed):
    listed.write(4, "delete", (40, 50), key="b")
    assert listed.page([("a", 1), ("b", 2), ("c", 3)], (51, 52)).kinds == ["deleted entry"]


def test_an_entry_must_not_be_older_than_what_was_acknowledged(listed):
    listed.write(4, "change", (40, 50), key="b")
    assert listed.page([("a", 1), ("b", 2), ("c", 3)], (51, 52)).kinds == ["stale entry"]


def test_an_entry_that_nobody_wrote(listed):
    assert listed.page([("a", 9), ("b", 2), ("c", 3)], (51, 52)).kinds == ["value never written"]


def test_an_item_that_moves_in_a_list_may_be_missed_by_a_page_it_may_have_left(listed):
    listed.write(4, "change", (40, 50), key="a")
    listed.page([("b", 2)], (45, 46), order="value", limit=1, more=True)
    assert listed.page([("b", 2), ("c", 3)], (45, 46), order="value").kinds == ["missing entry"]


def test_a_moved_item_must_be_where_it_is_now(listed):
    listed.write(4, "change", (40, 50), key="a")
    assert listed.page([("b", 2), ("c", 3), ("a", 4)], (51, 52), order="value").kinds == []
    assert listed.page([("c", 3)], (53, 54), order="value", after=("b", 2)).kinds == ["missing entry"]


def test_a_list_of_odd_values_has_the_greatest_first_and_the_others_behind_them(listed):
    """Nulls are last: the value of "b" is even."""
    assert listed.page([("c", 3), ("a", 1), ("b", 2)], (51, 52), order="odd").kinds == []
    assert listed.page([("a", 1), ("c", 3), ("b", 2)], (51, 52), order="odd").kinds == ["malformed page"]


def test_the_items_of_an_owner_are_on_a_page_and_no_others(listed):
    listed.page([("c", 3), ("b", 2), ("a", 1)], (51, 52), order="owned", owner=OWNED_BY)
    assert listed.page([], (51, 52), order="owned", owner=OWNED_BY + 1).kinds == []
    assert listed.page([("c", 3), ("a", 1)], (51, 52), order="owned", owner=OWNED_BY).kinds == [
        "missing entry"
    ]
    assert "malformed page" in listed.page([("c", 3)], (51, 52), order="owned", owner=OWNED_BY + 1).kinds


def test_a_list_by_marks_has_the_items_with_the_mark_of_their_value_or_owner(listed):
    """ "a" is 1, "b" 2 and "c" 3, so each has another mark by its value; by their owner all have the same."""
    of_owner = f"marked {3 + OWNED_BY % 2}"
    listed.page([("a", 1)], (51, 52), order="marked 1", total=1)
    listed.page([("a", 1), ("b", 2), ("c", 3)], (51, 52), order=of_owner, total=3)
    assert listed.kinds == []
    assert listed.page([], (53, 54), order="marked 2").kinds == ["missing entry"]
    assert (
        listed.page([("a", 1)], (55, 56), order="marked 0").kinds[1:]
        == ["missing entry", "malformed page"][::-1]
    )


def test_an_item_that_gets_another_owner_is_on_that_page_alone(listed):
    listed.write(4, "change", (40, 50), key="b", owner=OWNED_BY + 1)
    assert listed.page([("c", 3), ("a", 1)], (51, 52), order="owned", owner=OWNED_BY).kinds == []
    assert listed.page([], (53, 54), order="owned", owner=OWNED_BY + 1).kinds == ["missing entry"]


def test_a_list_with_a_condition_has_the_rows_that_fulfil_it(listed):
    listed.write(4, "change", (40, 50), key="b", owner=FRONT_OWNERS + 1)
    assert listed.page([("a", 1), ("c", 3)], (51, 52), order=FRONT, total=2).kinds == []
    assert listed.page([("a", 1)], (53, 54), order=FRONT).kinds == ["missing entry"]


def test_a_total_counts_what_must_be_there_and_no_more_than_may_be(listed):
    listed.write(4, "delete", (40, 50), key="b")
    for total in (2, 3):
        listed.page([("a", 1), ("b", 2), ("c", 3)], (45, 46), total=total)
    assert listed.kinds == []
    assert listed.page([("a", 1), ("c", 3)], (51, 52), total=3).kinds == ["wrong total"]


@pytest.mark.parametrize(
    ("entries", "more", "after"),
    [
        ([("b", 2), ("a", 1), ("c", 3)], False, None),
        ([("a", 1), ("a", 1), ("b", 2), ("c", 3)], False, None),
        ([("a", 1), ("b", 2), ("c", 3)], False, ("a", 1)),
        ([("a", 1)], True, None),
    ],
)
def test_a_page_in_disorder_or_too_short_is_malformed(listed, entries, more, after):
    assert "malformed page" in listed.page(entries, (30, 31), limit=9, more=more, after=after).kinds


def test_a_page_longer_than_asked_for_is_malformed(listed):
    assert listed.page([("a", 1), ("b", 2), ("c", 3)], (30, 31), limit=2).kinds == ["malformed page"]


# Rows that do not fit their documents: here those whose value is less than 0


def test_a_row_that_does_not_fit_is_said_not_to_and_is_neither_shown_nor_missing(story):
    story.write(3, "spoil", (50, 60), value=-3)
    assert story.aside((61, 62)).aside((55, 56)).get(2, (55, 56)).kinds == []
    assert story.get(-3, (61, 62)).kinds == ["shown though it does not fit"]
    assert story.get(None, (61, 62)).kinds[1:] == ["missing document"]
    assert story.get(2, (61, 62)).kinds[2:] == ["stale read"]


def test_a_row_that_was_mended_is_not_said_not_to_fit(story):
    story.write(3, "spoil", (50, 60), value=-3).write(4, "change", (70, 80))
    assert story.aside((75, 76)).get(4, (81, 82)).kinds == []
    assert story.aside((81, 82)).kinds == ["set aside for nothing"]


def test_a_row_that_always_fitted_is_not_said_not_to(story):
    assert story.aside((41, 42)).kinds == ["set aside for nothing"]


def test_a_page_leaves_out_and_counts_rows_that_do_not_fit(listed):
    listed.write(4, "spoil", (40, 50), key="b", value=-4)
    listed.page([("a", 1), ("c", 3)], (51, 52), set_aside=1)
    listed.page([("a", 1)], (51, 52), limit=2, more=True, set_aside=1)
    listed.page([("a", 1)], (51, 52), limit=1, more=True)
    assert listed.page([("a", 1), ("b", 2), ("c", 3)], (45, 46)).kinds == []
    assert listed.page([("a", 1), ("c", 3)], (51, 52)).kinds == ["wrong number set aside"]
    assert listed.page([("a", 1), ("b", -4), ("c", 3)], (51, 52), set_aside=1).kinds[1:] == [
        "shown though it does not fit"
    ]


def test_a_page_counts_no_row_that_fits(listed):
    assert listed.page([("a", 1), ("b", 2), ("c", 3)], (30, 31), set_aside=1).kinds == [
        "wrong number set aside"
    ]


def test_a_page_that_ends_before_a_row_that_does_not_fit_need_not_count_it(listed):
    listed.write(4, "spoil", (40, 50), key="c", value=-4)
    assert listed.page([("a", 1), ("b", 2)], (51, 52), limit=2, more=True).kinds == []


def test_a_row_that_does_not_fit_has_no_document_at_the_end(story):
    story.name_owner(5, (50, 60), kind="created").write(6, "spoil", (61, 62), value=-6)
    spoiled = _ending(
        rows={"a": Entry("a", -6, OWNED_BY)}, documents={}, joined={}, lists={"key": [], "value": []}
    )._replace(nested={"1": ("5", [])})
    assert list(check_end(story.log, spoiled)) == []
    shown = spoiled._replace(documents=spoiled.rows)
    assert [anomaly.kind for anomaly in check_end(story.log, shown)] == ["different at the end"]


# Commands and the log


def test_an_acknowledged_write_that_is_not_in_the_log_is_lost(story):
    assert story.write(3, "change", (50, 60), logged=False).kinds == ["lost write"]


def test_a_write_that_found_nothing_or_has_no_known_outcome_need_not_be_in_the_log(story):
    story.write(3, "change", (50, 60), logged=False, outcome="nothing")
    assert story.write(4, "change", (61, 62), logged=False, outcome="unknown").kinds == []


@pytest.mark.parametrize("outcome", ["failed", "nothing"])
def test_a_write_that_says_it_has_changed_nothing_must_not_be_in_the_log(story, outcome):
    assert story.write(3, "change", (50, 60), outcome=outcome).kinds == ["unwanted write"]


def test_errors_that_are_not_documented_are_reported(story):
    story.write(3, "change", (50, 60), outcome="error", logged=False)
    story.records.append(Failure("get", "a", 61, 62, "KeyError: 'x'", expected=False))
    story.records.append(Failure("get", "a", 63, 64, "DatabaseBusyError", expected=True))
    assert story.kinds == ["unexpected error", "unexpected error"]


def test_a_log_whose_rows_do_not_follow_from_each_other(story):
    assert story.write(3, "add", (50, 60)).kinds == ["log out of order"]
    assert Story().write(1, "change", (1, 2)).kinds == ["log out of order"]


# Owners with their items


def test_the_document_of_an_owner_has_all_items_whose_values_fit(listed):
    nested = {"order": NESTED, "owner": OWNED_BY}
    listed.page([("c", 3), ("b", 2), ("a", 1)], (30, 31), total=3, **nested)
    listed.write(4, "spoil", (40, 50), key="b", value=-4)
    assert listed.page([("c", 3), ("a", 1)], (51, 52), total=2, **nested).kinds == []
    assert listed.page([("c", 3), ("a", 1)], (53, 54), total=3, **nested).kinds == ["wrong total"]


def test_an_item_that_moves_is_in_the_document_of_its_new_owner_alone(listed):
    listed.write(4, "change", (40, 50), key="b", owner=OWNED_BY + 1)
    listed.page([("c", 3), ("b", 2), ("a", 1)], (51, 52), order=NESTED, owner=OWNED_BY)
    listed.page([], (51, 52), order=NESTED, owner=OWNED_BY + 1)
    assert listed.kinds == ["stale entry", "missing entry"]


def test_the_name_in_the_document_of_an_owner_is_new_enough(story):
    story.name_owner(5, (50, 60), kind="created").name_owner(6, (61, 70))
    story.records.append(Get("1", 1, 71, 72, "redis", "", value="6", found="1", entity=OWNER))
    assert story.kinds == []
    story.records.append(Get("1", 1, 71, 72, "redis", "", value="5", found="1", entity=OWNER))
    assert story.kinds == ["stale read"]


@pytest.mark.parametrize(
    "changed",
    [
        {"item_count": 3},
        {"value_total": 6},
        {"value_mean": Decimal("2.667")},
        {"greatest": 3},
        {"first": None},
        {"items": [OwnedValue("a", 5)]},
    ],
)
def test_numbers_of_an_owner_that_its_items_contradict_are_told(changed):
    items = [OwnedValue("a", 4), OwnedValue("b", 1), OwnedValue("c", 1)]
    owner = OwnerDocument(1, "5", items[:2], 2, 5, Decimal("2.500"), 4, items[0])
    assert fault_of_numbers(owner) == ""
    assert fault_of_numbers(msgspec.structs.replace(owner, **changed)).startswith("the items of 1 give")


# The end


def _ending(**changed: Any) -> Ending:
    entry = Entry("a", 2, OWNED_BY)
    rows = {"a": entry}
    lists = {"key": [entry], "value": [entry]}
    nested = {"1": ("5", [entry])}
    found = Ending(rows, {"1": "5"}, rows, {"a": (entry, "5")}, lists, nested=nested, by_total=["1"])
    return found._replace(**changed)


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": {}},
        {"owners": {"1": "6"}},
        {"documents": {}},
        {"documents": {"a": Entry("a", 1, OWNED_BY)}},
        {"joined": {"a": (Entry("a", 2, OWNED_BY), "6")}},
        {"lists": {"key": []}},
        {"lists": {"key": [Entry("a", 2, OWNED_BY), Entry("b", 3, OWNED_BY)]}},
        {"nested": {"1": ("5", [])}},
        {"nested": {"1": ("6", [Entry("a", 2, OWNED_BY)])}},
        {"nested": {}},
        {"by_total": []},
    ],
)
def test_what_differs_at_the_end_is_found(story, changed):
    story.name_owner(5, (50, 60), kind="created")
    assert list(check_end(story.log, _ending())) == []
    assert "different at the end" in [a.kind for a in check_end(story.log, _ending(**changed))]


def test_renamed_and_deleted_items_are_gone_at_the_end(story):
    story.name_owner(5, (50, 60), kind="created").write(6, "rename", (61, 62), to="b").write(
        7, "delete", (63, 64), key="b"
    )
    gone = _ending(rows={}, documents={}, joined={}, lists={"key": [], "value": []})
    gone = gone._replace(nested={"1": ("5", [])})
    assert list(check_end(story.log, gone)) == []


# Files and reports


def test_records_are_read_once_each_and_up_to_a_line_that_is_not_at_its_end(tmp_path, story):
    writer = Writer(tmp_path / "history-1.jsonl")
    story.page([("a", 1)], (21, 22))
    for record in story.records:
        writer.add(record)
    writer.close()
    with (tmp_path / "history-1.jsonl").open("ab") as file:
        file.write(b'["g","a",1')
    reader = Reader(tmp_path)
    assert list(reader.new()) == story.records
    with (tmp_path / "history-1.jsonl").open("ab") as file:
        file.write(b',21,22,"redis",""]\n')
    assert list(reader.new()) == [Get("a", 1, 21, 22, "redis", "")]


def test_an_anomaly_is_told_with_what_was_around_it(story):
    number = 3 * PROCESS + 7
    story.write(number, "change", (50, 60)).get(2, (61, 62))
    story.records.append(Fault("FLUSHALL", "", 45, 46))
    told = told_all(check(story.history), story.history)
    assert "1 anomalies: 1 × stale read" in told
    assert f"change {number} (process 3, position 3) begins" in told
    assert "FAULT FLUSHALL begins" in told


def test_the_time_on_sql_is_that_of_reads_during_and_after_a_fault(story):
    second = 1_000_000_000
    story.records.append(Fault("FLUSHALL", "", second, 2 * second))
    story.records.append(Fault("killed", "", 9 * second, 9 * second))
    for at in (1.5, 1.75, 2.25, 3.5):
        story.records.append(Get("a", 1, 0, int(at * second), "sql", "no-lease", 2, OWNED_BY, "a"))
    story.records.append(Get("a", 2, 0, 8 * second, "sql", "no-redis", 2, OWNED_BY, "a"))
    assert on_sql(story.history) == [("FLUSHALL", 0.25, 1.5), ("killed", 0.0, 0.0)]
    assert "1 × FLUSHALL" in summary([story.history])

"""What this model's rules say, each with the exploration in which dropping it has to be caught."""

import itertools
import random
from collections.abc import Iterator

from tests.model.rows.config import Change, Config, Program, Q, R, S
from tests.model.rules import Rule


def _by(process: int, *changes: Change) -> Program:
    return Program(process, changes)


def _session(process: int, *changes: Change) -> Program:
    return Program(process, changes, "session")


def _foreign(process: int, *changes: Change) -> Program:
    return Program(process, changes, "foreign")


UPDATE, MOVE, DELETE, SPOIL = (
    Change("update", R),
    Change("move", R, 2),
    Change("delete", R),
    Change("spoil", R),
)
SHIFT, HIDE = Change("shift", R), Change("hide", R)
UPDATE_Q, NOTE, LOOK = Change("update", Q), Change("note"), Change("look")
TWO_ROWS = ((R, 1), (Q, 2))
# R goes from 1 to 3, and a trigger moves Q from 2 to 1: the trigger's entry comes first.
OUST = Change("oust", R, 3, Q)
# R and Q change places by way of 3, in one transaction.
SWAP = (Change("move", R, 3), Change("move", Q, 1), Change("move", R, 2))
# The change of position 3 is open while those of 2 and 4, the latter of another row, are committed.
OPEN_BETWEEN = Config(
    (_by(0, UPDATE), _by(1, UPDATE), _by(2, UPDATE_Q)),
    rows=TWO_ROWS,
    prefix=(
        *(
            "command 1 begins",
            "command 1 update",
            "command 1 commits",
            "command 2 begins",
            "command 2 update",
        ),
        *("command 3 begins", "command 3 update", "command 3 commits"),
    ),
)
APPLIED = tuple(
    f"command 1 {step}" for step in ("begins", "update", "commits", "applies", "reads", "is answered")
)
# A planned rebuild has read every row, and does not know of a change that has been answered since.
REBUILD = Config(
    (_by(0, UPDATE),),
    addresses=1,
    keepers=2,
    passes=1,
    plans=1,
    retention=1,
    prefix=("keeper plans", "keeper commits", "keeper reads and writes", *APPLIED),
)

RULES: dict[str, Rule[Config]] = {
    "stamps": Rule(
        "4 ★", "an address is set only by a greater position", Config((_by(0, UPDATE), _by(1, UPDATE)))
    ),
    "floor": Rule(
        "4",
        "a change below the floor is skipped",
        Config(
            (_by(0, UPDATE), _by(1, DELETE)),
            late=1,
            passes=2,
            addresses=1,
            prefix=("command 1 begins", "command 1 update", "command 1 commits", "command 1 gives up"),
        ),
    ),
    "tombstones": Rule(
        "4", "an address that a row has left keeps a tombstone", Config((_by(0, MOVE), _by(1, DELETE)))
    ),
    "former-address": Rule(
        "4", "a change is written at the row's former address too", Config((_by(0, MOVE),))
    ),
    "select-after-commit": Rule(
        "5 ★", "the fence and the entries are read after the COMMIT", Config((_by(0, UPDATE), _by(1, UPDATE)))
    ),
    "own": Rule("5 ★", "a command's own entries have to be in", Config((_by(0, UPDATE),))),
    "others": Rule(
        "5 ★",
        "entries of other processes, killed ones too, have to be in",
        Config((_by(0, MOVE), _by(1, UPDATE))),
    ),
    "every-row": Rule(
        "5 ★",
        "entries of any row have to be in: what a command read is not known",
        Config((_by(0, UPDATE), _by(1, UPDATE_Q)), rows=TWO_ROWS),
    ),
    "every-address": Rule(
        "5 ★",
        "so has the entry by which another row left the address that a command takes",
        Config((_by(0, MOVE), _by(1, Change("create", Q, 1)))),
    ),
    "both-addresses": Rule(
        "5 ★",
        "an entry is in when it, or a later one, is at its old and at its new address",
        Config((_by(0, MOVE), _by(1, UPDATE))),
    ),
    "errors": Rule(
        "5 ★",
        "an error answer waits for all entries, after the ROLLBACK",
        Config((_by(0, MOVE), _by(1, Change("create", Q, 2)))),
    ),
    "no-change": Rule(
        "5 ★", "so does the answer of a command that changed nothing", Config((_by(0, UPDATE), _by(1)))
    ),
    "looked-late": Rule(
        "5 ★",
        "entries after a command's last own one count too if it looked later: when a statement failed and it went on",
        Config((_by(0, Change("create", Q, 2)), _by(1, UPDATE, Change("try", S, 2)))),
    ),
    "looked-unseen": Rule(
        "5 ★",
        "so do entries that its snapshot did not see: when it asked a read model, or a foreign key was checked",
        Config((_by(0, UPDATE), _by(1, LOOK, UPDATE_Q)), rows=TWO_ROWS),
    ),
    "freed": Rule(
        "5 ★",
        "of entries that its snapshot did not see, those count by which an address is free, if it has taken one",
        Config((_by(0, MOVE), _by(1, Change("create", Q, 1)))),
    ),
    "whole-transaction": Rule(
        "5 ★",
        "of a transaction, all entries count if one does: its row may have been changed twice",
        Config((_by(0, MOVE, UPDATE), _by(1, Change("create", Q, 3))), addresses=3),
    ),
    "unchecked": Rule(
        "5 ★",
        "a process that can't look into a read model waits for any entry of what its command may have read",
        Config((_by(0, UPDATE), _by(1, NOTE)), without_redis=(1,)),
    ),
    "whole-look": Rule(
        "5 ★",
        "L goes on to a SELECT's snapshot only when all entries of that SELECT are in",
        Config((_by(0, UPDATE), _by(1, UPDATE_Q), _by(1)), rows=TWO_ROWS),
    ),
    "help-generation": Rule(
        "5 ★",
        "entries are brought into the generation of the SELECT's fence row, never into a later one",
        Config(
            (_by(0, NOTE), _by(1, UPDATE), _by(2, UPDATE), _by(3)),
            plans=1,
            addresses=1,
            prefix=(
                *("command 1 begins", "command 1 writes", "command 2 begins", "command 2 update"),
                *("command 2 commits", "command 4 begins", "command 4 ends", "command 4 reads"),
                *("command 3 begins", "command 3 update", "command 3 commits"),
                *("keeper plans", "keeper commits", "keeper reads and writes", "keeper switches"),
            ),
        ),
    ),
    "help-stamps": Rule(
        "5 ★", "what is brought in for others has the stamps of their own positions", OPEN_BETWEEN
    ),
    "shared-answers": Rule(
        "2 ★",
        "of the commands of a shared transaction nobody is answered before its COMMIT, not with an error either",
        Config((_by(0, MOVE), _by(0, Change("create", Q, 2))), together=(0, 1)),
    ),
    "floor-read": Rule(
        "10",
        "the floor is the xmin of the snapshot that the log was read in",
        Config((_by(0, UPDATE),), passes=1),
    ),
    "both-in-one": Rule(
        "9",
        "a pass writes both addresses of a row in one script",
        Config((_by(0, MOVE),), passes=1, lists=True),
    ),
    "one-snapshot": Rule(
        "9 ★",
        "rows that a pass reads again are read in the snapshot that it read the log in",
        Config((_by(0, UPDATE), _by(1, MOVE)), passes=1, read_again=True, lists=True),
    ),
    "one-stamp": Rule(
        "9",
        "what is read again is stamped with the last of the entries that name this address",
        OPEN_BETWEEN._replace(passes=1, read_again=True),
    ),
    "rebuild-cursor": Rule(
        "12 ★",
        "the log keeps what a planned rebuild has still to read",
        REBUILD,
    ),
    "switch-row": Rule(
        "12 ★",
        "a planned rebuild switches only while its own row of the fence is there",
        REBUILD,
    ),
    "close-abandoned": Rule(
        "12",
        "retention passes over a cursor only after it has closed its row",
        Config((_by(0, UPDATE), _by(1)), addresses=1, passes=1, retention=1),
    ),
    "listed-first": Rule(
        "12",
        "a sweep lists generations before it reads the fence",
        Config((_by(0),), plans=1, sweeps=1),
    ),
    "set-aside-written": Rule(
        "4",
        "a row that does not fit its document is set aside in Redis, not left out",
        Config((_by(0, SPOIL),)),
    ),
    "set-aside-stamp": Rule(
        "4", "what is set aside has a stamp as documents have", Config((_by(0, UPDATE), _by(1, SPOIL)))
    ),
    "former-entry": Rule(
        "4", "with a document go the list entries that it had", Config((_by(0, SHIFT), _by(1, UPDATE)))
    ),
    "left-out-written": Rule(
        "4 ★", "a row that its condition leaves out by now is a tombstone", Config((_by(0, HIDE),))
    ),
}

RULES |= {
    "t0-before-read": Rule(
        "7, 10 ★",
        "a lease is counted from before the log is read: a foreign change is visible a lease after its commit",
        Config((_foreign(0, UPDATE),), passes=1),
    ),
    "read-both": Rule(
        "9 ★",
        "rows of entries without an image are read again at the old address as well as at the new one",
        Config((_foreign(0, OUST),), rows=TWO_ROWS, addresses=3, passes=1),
    ),
    "session-by-address": Rule(
        "4 ★",
        "a session's entries are folded by address, not by row",
        Config((_session(0, *SWAP),), rows=TWO_ROWS, addresses=3),
    ),
    "session-before-commit": Rule(
        "3 ★",
        "a session's rows are read in its transaction, before the commit",
        Config((_session(0, UPDATE), _session(1, MOVE)), lists=True),
    ),
}

# Dropped alone these are not caught: other rules cover for them within the bounds explored.
COVERED: dict[str, tuple[str, Config]] = {
    "cursor-after-row": (
        "rows are read after the row of the fence is committed: what retention could have missed is among them",
        REBUILD._replace(prefix=("keeper plans", *APPLIED)),
    ),
    "equal-stamps": (
        "rows read again are read in the log's snapshot, so that of one stamp there is one content",
        Config((_by(0, UPDATE), _by(1, DELETE)), passes=2, read_again=True, addresses=1),
    ),
    "own-look-generation": (
        "a generation is trusted only after a reading of the log that is later than its fence row",
        Config((_by(0, UPDATE), _by(0)), plans=1, addresses=1),
    ),
}

SOUND: dict[str, Config] = {
    "a move, an update and a deletion": Config((_by(0, MOVE), _by(1, UPDATE), _by(2, DELETE))),
    "an address handed over, a late script": Config((_by(0, MOVE), _by(1, Change("create", Q, 1))), late=1),
    "an error answer, a pass, a late script": Config(
        (_by(0, MOVE), _by(1, Change("create", Q, 2))), late=1, passes=1
    ),
    "rows read again, three commands": Config(
        (_by(0, MOVE), _by(1, UPDATE), _by(2, DELETE)), read_again=True
    ),
    "a planned rebuild": Config((_by(0, MOVE), _by(1, Change("create", Q, 1))), plans=1),
    "a row goes from list to list, is left out, and comes back": Config(
        (_by(0, SHIFT), _by(1, HIDE), _by(0, UPDATE))
    ),
    "a row that is left out leaves its address to another; a pass, a late script": Config(
        (_by(0, HIDE), _by(1, Change("move", R, 2), Change("create", Q, 1))), late=1, passes=1
    ),
    "a session leaves a row out, another program puts it back": Config(
        (_session(0, HIDE), _foreign(1, SHIFT)), passes=1, late=1
    ),
    "carried before the promise": Config((_by(0, MOVE),), early=1, passes=1, late=1),
    "a foreign move, two passes, a late script": Config((_foreign(0, MOVE),), passes=2, keepers=2, late=1),
    "two commands that look at what is committed between their changes": Config(
        (_by(0, UPDATE, LOOK, MOVE), _by(1, UPDATE_Q, LOOK)), rows=TWO_ROWS, addresses=3
    ),
    "a command builds on a foreign change": Config((_foreign(0, MOVE), _by(1, UPDATE)), passes=1, late=1),
    "a session swaps keys beside a foreign deletion": Config(
        (_session(0, *SWAP), _foreign(1, DELETE)), rows=TWO_ROWS, addresses=3, passes=1
    ),
    "a trigger's entry comes before that of its statement": Config(
        (_session(0, OUST), _foreign(1, UPDATE_Q)), rows=TWO_ROWS, addresses=3, passes=1
    ),
}

LARGER: dict[str, Config] = {
    "a row goes from list to list, is left out, and comes back elsewhere; a late script": Config(
        (_by(0, SHIFT), _by(1, HIDE), _by(0, MOVE)), late=1
    ),
    "an address handed over, three commands, a late script": Config(
        (_by(0, MOVE), _by(1, Change("create", Q, 1)), _by(1, UPDATE)), late=1
    ),
    "three commands, a pass, a late script": Config(
        (_by(0, MOVE), _by(1, UPDATE), _by(2, DELETE)), passes=1, late=1
    ),
    "a planned rebuild, a pass, a late script": Config(
        (_by(0, MOVE), _by(1, Change("create", Q, 1))), plans=1, passes=1, late=1
    ),
    "rows read again, two passes, a late script": Config(
        (_by(0, MOVE), _by(1, DELETE)), passes=2, late=1, read_again=True
    ),
}

# One-change programs, each row of the first two, three addresses; every three of them are explored by `make model`.
_ONE = (
    *((change,) for change in (UPDATE, MOVE, DELETE, SPOIL, UPDATE_Q)),
    *((Change("move", R, 3),), (Change("move", Q, 1),), (Change("delete", Q),)),
    *((Change("create", S, 1),), (Change("create", S, 3),)),
    *((NOTE, Change("try", S, 3)), (Change("try", S, 2), NOTE), (LOOK, NOTE), (UPDATE_Q, LOOK), ()),
)


def triples(seed: int) -> Iterator[tuple[str, Config]]:
    """Every three of them in two processes, a script of which may come late; in an order drawn from the seed.

    Drawn from the seed is also who writes: `ORMService`, a session, or a foreign writer, beside whom there is a pass.
    """
    chosen = [three for three in itertools.combinations_with_replacement(_ONE, 3) if any(three)]
    draw = random.Random(seed)
    draw.shuffle(chosen)
    for three in chosen:
        writers = [
            draw.choice(("orm", "orm", "session", "foreign")) if changes else "orm" for changes in three
        ]
        programs = tuple(
            Program(2 if writer == "foreign" else min(n, 1), changes, writer)
            for n, (changes, writer) in enumerate(zip(three, writers, strict=True))
        )
        name = "; ".join(
            f"{writer}: " + (" and ".join(change.kind + str(change[1:]) for change in one) or "reads")
            for one, writer in zip(three, writers, strict=True)
        )
        passes = 1 if "foreign" in writers else 0
        yield name, Config(programs, rows=TWO_ROWS, addresses=3, late=1, passes=passes)

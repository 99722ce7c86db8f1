"""What this model's rules say, each with the exploration in which dropping it has to be caught."""

from tests.model.history.config import Config
from tests.model.rules import Rule

MOVED = "the database is put elsewhere"
WRITTEN = ("command 1 writes", "command 1 commits", "command 1 applies nothing")
PASSED = ("keeper promises", "keeper reads", "keeper writes", "keeper publishes")

RULES: dict[str, Rule[Config]] = {
    "adopted": Rule(
        "1, 5, 7",
        "nothing of a fence row is used in a database that its history is not adopted for",
        Config(moves=1),
    ),
    "this-history": Rule(
        "9, 12", "log rows below the first position of this history are not read", Config(moves=1, passes=1)
    ),
    "sequence": Rule(
        "12",
        "after an adoption positions go on above those that the log has",
        Config(("write", "write"), moves=1, counted_anew=True, prefix=(*WRITTEN, MOVED)),
    ),
    "adoption-lock": Rule(
        "12",
        "an adoption waits for those who have written to the log",
        Config(
            ("write", "note", "read"),
            moves=1,
            prefix=(MOVED, "command 1 writes", "command 2 writes", "command 2 commits"),
        ),
    ),
    "adoption-lease": Rule(
        "12",
        "an adoption sets the promise anew: the lease of the former history may still be trusted",
        Config(moves=1),
    ),
    "no-generation": Rule(
        "5 ★",
        "while a lease is promised and there is no generation, nobody is answered at once",
        Config(moves=1),
    ),
    "wait-history": Rule(
        "6",
        "who waits for the end of a lease looks anew when the fence shows another history: its clock is another",
        Config(moves=1, ahead=True),
    ),
    "pass-number": Rule(
        "8, 12",
        "a promise whose number Redis knows already is of a database put back",
        Config(
            ("write", "read"), returns=1, passes=2, prefix=("the database is backed up", *WRITTEN, *PASSED)
        ),
    ),
    "lease-history": Rule(
        "13 ★",
        "a query is served only if the lease names the history of its own database",
        Config((), two=True),
    ),
}

# Dropped alone it is not caught: other rules cover for it within the bounds explored.
COVERED: dict[str, tuple[str, Config]] = {
    "foreign-lease": (
        "that queries look at the history: two databases under one namespace only take the lease from each other",
        Config(two=True, passes=2),
    ),
}

SOUND: dict[str, Config] = {
    "a database put elsewhere, two commands": Config(("write", "read"), moves=1, builds=1, prefix=WRITTEN),
    "put elsewhere, where the clock is ahead": Config(("write", "read"), moves=1, ahead=True, prefix=WRITTEN),
    "two databases under one namespace, one put elsewhere": Config(two=True, moves=1),
}

LARGER: dict[str, Config] = {
    "a database put elsewhere, two writing, positions from 1": Config(
        ("write", "write"), moves=1, counted_anew=True, passes=2
    ),
    "a database put elsewhere, three commands": Config(("write", "note", "read"), moves=1),
    "a database put back, then elsewhere": Config(("write", "write"), returns=1, moves=1, passes=3, builds=2),
}

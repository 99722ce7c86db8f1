"""What this model's rules say, each with the exploration in which dropping it has to be caught."""

from typing import NamedTuple

from tests.model.rules import Rule


class Config(NamedTuple):
    """Bounds of an exploration: changes by other programs, moments without triggers; `off` are the rules dropped."""

    keepers: int = 1
    changes: int = 1
    gaps: int = 1
    passes: int = 1
    builds: int = 0
    prefix: tuple[str, ...] = ()
    off: frozenset[str] = frozenset()

    def without(self, *rules: str) -> "Config":
        """The same exploration with these rules dropped."""
        return self._replace(off=self.off | set(rules))


RULES: dict[str, Rule[Config]] = {
    "lease-from-t0": Rule(
        "10 ★", "a change by others is missed for a lease at most: leases are counted from t0", Config(gaps=0)
    ),
    "fingerprint-after": Rule("9 ★", "the fingerprint is compared after t0", Config()),
    "generation-stands": Rule(
        "9 ★",
        "the fingerprint counts only if the fence still names the generation when it has been read",
        Config(keepers=2, passes=2),
    ),
    "one-transaction": Rule(
        "9",
        "one transaction makes the triggers anew and ends the generation",
        Config(keepers=2, passes=2),
    ),
}

SOUND: dict[str, Config] = {
    "two changes, two moments without triggers, two keepers, a build": Config(
        keepers=2, changes=2, gaps=2, passes=2, builds=1
    ),
}

LARGER: dict[str, Config] = {
    "three changes, two keepers, two builds": Config(keepers=2, changes=3, gaps=2, passes=3, builds=2),
    "two changes, three keepers, a build": Config(keepers=3, changes=2, gaps=2, passes=3, builds=1),
}

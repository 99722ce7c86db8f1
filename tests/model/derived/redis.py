"""Redis in this model: generations, documents with their snapshots' stamps, tombstones, the floor."""

from collections.abc import Iterable

from tests.model.derived import sql
from tests.model.derived.config import Config
from tests.model.derived.state import Document, Generation, Message, State, Write
from tests.model.sql import stamp
from tests.model.state import Snapshot


def find(state: State, name: int) -> Generation | None:
    """The generation of this name, if its marker is there."""
    return next((each for each in state.generations if each.name == name), None)


def put(state: State, generation: Generation) -> State:
    """The state with this generation in the place of the one of its name."""
    others = (each for each in state.generations if each.name != generation.name)
    return state._replace(generations=tuple(sorted((*others, generation))))


def message_of(
    state: State,
    config: Config,
    kind: str,
    generation: int,
    snapshot: Snapshot,
    entries: Iterable[int],
    rows: sql.Rows,
) -> Message:
    """The script with the documents that these entries touch, as `rows` make them."""
    keys = sql.touched((state.log[p - 1] for p in entries), rows, config.keys, config.off)
    writes = tuple(Write(key, sql.content(rows, key)) for key in keys)
    if "tombstones" in config.off:
        writes = tuple(write for write in writes if write.content)
    return Message(kind, generation, snapshot, writes)


def execute(state: State, message: Message, config: Config) -> tuple[State, bool]:
    """Each document is set if its stamp is greater than the stored one; none if a later pass has raised the floor.

    Returns too whether the script was accepted: whether the generation is there.
    """
    generation = find(state, message.generation)
    if generation is None:
        return state, False
    if message.snapshot.xmax <= generation.floor and "floor" not in config.off:
        return state, True
    given = stamp(message.snapshot)
    if "running" in config.off:
        given = (given[0], 0)
    purge = 1 if "purge" in config.off else message.snapshot.xmax
    documents = list(generation.documents)
    for key, content in message.writes:
        at = config.keys.index(key)
        stored = documents[at]
        if stored is None or given > stored.stamp or "stamps" in config.off:
            documents[at] = Document(given, content, 0 if content else purge)
    written = put(state, generation._replace(documents=tuple(documents)))
    return (note_carried(written, message) if message.kind == "documents" else written), True


def note_carried(state: State, message: Message) -> State:
    """Notes the snapshot of a command's script in the generation: its documents are in."""
    generation = find(state, message.generation)
    if generation is None:
        return state
    carried = max(generation.carried, message.snapshot, key=stamp)
    return put(state, generation._replace(carried=carried))

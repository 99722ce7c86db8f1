"""Redis in this model: documents with their snapshots' stamps, tombstones, the floor."""

from collections.abc import Iterable

from tests.model.derived import sql
from tests.model.derived.config import Config
from tests.model.derived.state import Document, Message, State, Write
from tests.model.sql import stamp
from tests.model.state import Snapshot


def message_of(
    state: State, config: Config, kind: str, snapshot: Snapshot, entries: Iterable[int], rows: sql.Rows
) -> Message:
    """The script with the documents that these entries touch, as `rows` make them."""
    keys = sql.touched((state.log[p - 1] for p in entries), rows, config.keys, config.off)
    writes = tuple(Write(key, sql.content(rows, key)) for key in keys)
    if "tombstones" in config.off:
        writes = tuple(write for write in writes if write.content)
    return Message(kind, snapshot, writes)


def execute(state: State, message: Message, config: Config) -> State:
    """Each document is set if its stamp is greater than the stored one; none if a later pass has raised the floor."""
    if message.snapshot.xmax <= state.floor and "floor" not in config.off:
        return state
    given = stamp(message.snapshot)
    if "running" in config.off:
        given = (given[0], 0)
    purge = 1 if "purge" in config.off else message.snapshot.xmax
    documents = list(state.documents)
    for key, content in message.writes:
        at = config.keys.index(key)
        stored = documents[at]
        if stored is None or given > stored.stamp or "stamps" in config.off:
            documents[at] = Document(given, content, 0 if content else purge)
    return state._replace(documents=tuple(documents))

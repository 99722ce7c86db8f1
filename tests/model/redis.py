"""One Redis process and the scripts it runs. Every script is atomic."""

from tests.model.state import DERIVED, PUT, Data, Document, Generation, Lease, Message, Node, Row

Documents = tuple[Document | None, Document | None, Document | None]


def find(data: Data, name: int) -> Generation | None:
    """The generation whose marker is there."""
    for generation in data.generations:
        if generation.name == name:
            return generation
    return None


def execute(node: Node, message: Message, off: frozenset[str]) -> tuple[Node, bool]:
    """Run a script: the node after it, and whether the script accepted."""
    if not _is_for(node, message, off):
        return node, False
    if message.kind == "marker":
        return node._replace(data=_write_marker(node.data, message, off)), True
    generation = find(node.data, message.generation)
    if generation is None:
        if "marker" not in off:
            return node, False
        generation = Generation(message.generation, True, 0, (None, None, None))
    if message.kind == "lease":
        return _publish(node, generation, message, off)
    if message.kind == "drop" and "drop-first" in off:
        return node, True
    if message.kind == "drop":
        rest = tuple(g for g in node.data.generations if g.name not in message.doomed)
        return node._replace(data=Data(None, rest)), True
    if message.kind == "fill":
        filled = _fill(generation, message, off)
        return (
            (_keep(node, filled), True)
            if filled
            else (node, generation.built or generation.number >= message.number)
        )
    return _keep(node, _apply(generation, message, off)), True


def is_in(generation: Generation, row: Row) -> bool:
    """Whether a change is in: its transaction is below the floor, or it or a later one is stored."""
    stored = generation.documents[row.key]
    is_below = generation.built and row.xid < generation.number
    return is_below or (stored is not None and stored.stamp >= row.position)  # type: ignore[operator]


def _is_for(node: Node, message: Message, off: frozenset[str]) -> bool:
    if message.kind == "apply":
        return node.run == message.run or "apply-run" in off
    right_run = node.run == message.run or "pass-run" in off
    return right_run and (node.replications[-1] == message.replication or "pass-replication" in off)


def _keep(node: Node, generation: Generation) -> Node:
    rest = [g for g in node.data.generations if g.name != generation.name]
    return node._replace(data=node.data._replace(generations=tuple(sorted([*rest, generation]))))


def _write_marker(data: Data, message: Message, off: frozenset[str]) -> Data:
    if "listed-before" in off:
        rest: list[Generation] = []
    else:
        rest = [g for g in data.generations if g.name not in message.doomed and g.name != message.generation]
    marked = Generation(message.generation, False, 0, (None, None, None))
    return data._replace(generations=tuple(sorted([*rest, marked], key=lambda g: g.name)))


def _fill(generation: Generation, message: Message, off: frozenset[str]) -> Generation | None:
    """A builder's script: after its predecessor only, and never over an applied change."""
    if "builder-numbers" not in off and (generation.built or generation.number != message.number - 1):
        return None
    documents = list(generation.documents)
    for row in message.rows:
        if documents[row.key] is None or "position-zero" in off:
            documents[row.key] = Document(0, row.position, 0)
    if message.derived and documents[DERIVED] is None:
        documents[DERIVED] = message.derived
    after = generation._replace(documents=(documents[0], documents[1], documents[2]))
    if generation.built:
        return after
    return after._replace(built=bool(message.floor), number=message.floor or message.number)


def _apply(generation: Generation, message: Message, off: frozenset[str]) -> Generation:
    documents = list(generation.documents)
    floor = generation.number if generation.built else 0
    for row in message.rows:
        if row.xid >= floor or "floor" in off:
            documents[row.key] = _put(documents[row.key], row, message.horizon, off)
    if message.derived and (message.kind == "apply" or message.horizon > floor):
        documents[DERIVED] = _newer(documents[DERIVED], message.derived, off)
    if generation.built and message.floor > floor:
        floor = message.floor
        documents = [None if d and 0 < d.purge <= floor else d for d in documents]
    after = generation._replace(documents=(documents[0], documents[1], documents[2]))
    return after._replace(number=floor) if generation.built else after


def _put(stored: Document | None, row: Row, horizon: int, off: frozenset[str]) -> Document | None:
    if row.kind == PUT:
        new = Document(row.position, row.position, 0)
    elif "tombstones" in off:
        return None
    else:
        # Only a pass knows a snapshot that saw the deletion; its xmax is when the tombstone may go.
        new = Document(row.position, 0, (row.xid + 1 if "purge" in off else horizon) if horizon else 0)
    if stored is None or "positions" in off:
        return new
    if stored.stamp == row.position and not stored.purge:
        return new
    return new if row.position > stored.stamp else stored  # type: ignore[operator]


def _newer(stored: Document | None, new: Document, off: frozenset[str]) -> Document:
    if stored is None or "derived-stamp" in off:
        return new
    return new if new.stamp > stored.stamp else stored  # type: ignore[operator]


def _publish(node: Node, generation: Generation, message: Message, off: frozenset[str]) -> tuple[Node, bool]:
    if not generation.built or (generation.number < message.floor and "floor-at-publish" not in off):
        return node, False
    left = 1 if "lease-from-t0" in off else message.left
    held = node.data.lease
    if left == 0:
        return node, True
    lease = Lease(message.run, message.replication, message.generation, left)
    if held and held.left > left and held[:3] == lease[:3]:
        return node, True
    return node._replace(data=node.data._replace(lease=lease)), True

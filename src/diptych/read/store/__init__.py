"""The Redis route of a read model: its keys and its scripts."""

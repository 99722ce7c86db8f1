"""The Redis route of a read model: keys, scripts, reads and writes."""

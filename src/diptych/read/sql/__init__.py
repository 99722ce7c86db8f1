"""The SQL route of a read model."""

"""Commands, queries and events: their types, their validation and their handlers."""

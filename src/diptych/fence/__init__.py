"""The fence: what SQL knows of each read model in Redis, and how a command waits for it."""

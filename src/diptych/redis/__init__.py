"""The connections to Redis, and its identity."""

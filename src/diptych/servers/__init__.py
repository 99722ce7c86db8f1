"""Real servers for tests: PostgreSQL and Valkey or Redis, each in a directory and on a port of its own.

They end with the process that started them, however that ends: see ``guard``.
"""

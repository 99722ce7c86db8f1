"""Real servers for the tests: PostgreSQL, Valkey and Redis, each in a directory and on a port of its own.

    with RedisServer(valkey_binary(), {"maxmemory-policy": "noeviction"}) as server:
        connect(server.url)
        server.kill()        # SIGKILL
        server.start()       # the same port and the same data

They end with the tests, however those end: see ``diptych.servers.guard``.
"""

from diptych.servers.guard import forget_process, watch_directory, watch_process
from diptych.servers.postgres import PostgresServer
from diptych.servers.process import HOST, Server, ServerFailedError, free_port, lives
from diptych.servers.redis import RedisServer, redis_binary, valkey_binary
from tests.servers.clocks import clock_ahead, libfaketime
from tests.servers.databases import Databases
from tests.servers.pgbouncer import PgBouncer, pgbouncer_binary

__all__ = [
    "HOST",
    "Databases",
    "PgBouncer",
    "PostgresServer",
    "RedisServer",
    "Server",
    "ServerFailedError",
    "clock_ahead",
    "forget_process",
    "free_port",
    "libfaketime",
    "lives",
    "pgbouncer_binary",
    "redis_binary",
    "valkey_binary",
    "watch_directory",
    "watch_process",
]

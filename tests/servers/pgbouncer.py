"""PgBouncer, a pooler of PostgreSQL's connections."""

from __future__ import annotations

import pwd
import shutil
from collections.abc import Mapping
from typing import Any

from diptych.servers.postgres import PostgresServer
from diptych.servers.process import HOST, Server, is_root


class PgBouncer(Server):
    """PgBouncer before a database of a ``PostgresServer``. ``config`` holds settings of its section ``pgbouncer``."""

    ready_line = "process up"

    def __init__(
        self, binary: str, server: PostgresServer, database: str, config: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self.binary, self.database = binary, database
        self.target = f"host={HOST} port={server.port} user=postgres"
        self.config = {"listen_addr": HOST, "listen_port": str(self.port), "unix_socket_dir": ""}
        self.config |= {"auth_type": "any", "pool_mode": "transaction", **(config or {})}
        if is_root():
            shutil.chown(self.directory, "nobody")

    @property
    def url(self) -> str:
        """The URL of the database."""
        return f"postgresql://postgres@{HOST}:{self.port}/{self.database}"

    def command(self) -> list[str]:
        """Write the configuration, so that changes of ``config`` take effect at the next start."""
        file = self.directory / "pgbouncer.ini"
        settings = "".join(f"{name} = {value}\n" for name, value in self.config.items())
        file.write_text(f"[databases]\n{self.database} = {self.target}\n[pgbouncer]\n{settings}")
        return [self.binary, str(file)]

    def run_as(self) -> dict[str, Any]:
        """PgBouncer refuses to run as root: then it is ``nobody``."""
        if not is_root():
            return {}
        nobody = pwd.getpwnam("nobody")
        return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


def pgbouncer_binary() -> str | None:
    """The system's ``pgbouncer``, if there is one."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

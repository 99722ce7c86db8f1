"""A server process of tests, with a directory and a port of its own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import psutil

from diptych.servers import guard

HOST = "127.0.0.1"


def free_port() -> int:
    """A free TCP port of 127.0.0.1.

    It lies below the range from which systems give ports to clients: in that range a client could take the port
    of a server that is just being restarted, or be connected to itself while the server is away. For the same reason
    tests that run beside each other (pytest-xdist) have ports of their own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    while True:
        port = random.randrange(20_000 + worker, 32_000, workers)
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                continue
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def lives(process: psutil.Process) -> bool:
    """Returns whether ``process`` still runs: a process that has ended, but was not waited for, does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class ServerFailedError(Exception):
    """A server ended or did not get ready; the message holds the end of its log."""


class Server(ABC):
    """A server process, to be started, stopped, killed and started again on the same port and data."""

    ready_line: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    last_resort: ClassVar[signal.Signals] = signal.SIGKILL
    start_timeout_s: ClassVar[float] = 30.0
    stop_timeout_s: ClassVar[float] = 15.0

    def __init__(self) -> None:
        self.directory = temporary_directory()
        self.port = free_port()
        self.log_file = self.directory / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """The address for clients."""

    @abstractmethod
    def command(self) -> list[str]:
        """Returns the command to start the server in the foreground."""

    def run_as(self) -> dict[str, Any]:
        """Arguments of ``subprocess`` for the user and the environment of the server."""
        return {}

    @property
    def running(self) -> bool:
        """True if the process is there."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        if self._process is None:
            raise ServerFailedError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start and wait until clients are served. Safe while the server runs."""
        if self.running:
            return
        self._reap()
        with self.log_file.open("ab") as log:
            log_begin = log.tell()
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,  # an interrupt of the tests is not one of the server
                **self.run_as(),
            )
        guard.watch_process(self._process.pid, self.last_resort)
        self._await_ready(log_begin)

    def stop(self) -> None:
        """Stop in good order; kill a process that does not end in time. Safe twice."""
        if self._process is not None and self.running:
            self._signal(signal.SIGCONT)
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(self.stop_timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
        self._reap()

    def kill(self) -> None:
        """End the process and its children at once, with SIGKILL."""
        processes = self._signal(signal.SIGKILL)
        self._reap()
        while any(map(lives, processes)):  # until then they hold its port and memory
            time.sleep(0.005)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze the server: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo ``pause``."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Stop, and remove the data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """Returns the log of the server."""
        return self.log_file.read_text(errors="replace")

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _await_ready(self, log_begin: int) -> None:
        deadline = time.monotonic() + self.start_timeout_s
        while self.ready_line not in self.log_file.read_bytes()[log_begin:].decode(errors="replace"):
            if not self.running or time.monotonic() > deadline:
                raise ServerFailedError(f"{self.command()[0]} did not start:\n{self.log()[-2000:]}")
            time.sleep(0.01)

    def _signal(self, number: signal.Signals) -> list[psutil.Process]:
        if not self.running:
            return []
        parent = psutil.Process(self.pid)
        processes = [parent, *parent.children(recursive=True)]
        for process in processes:
            try:
                process.send_signal(number)
            except psutil.NoSuchProcess:
                continue
        return processes

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait(self.stop_timeout_s)
            guard.forget_process(self._process.pid)
            self._process = None


def is_root() -> bool:
    """Returns whether the tests run as root: some servers refuse to start as root."""
    return os.geteuid() == 0


def temporary_directory() -> Path:
    """A new directory, removed after the tests."""
    # Root's TMPDIR may be closed to the user that PostgreSQL runs as.
    parent = "/tmp" if is_root() else None  # noqa: S108
    path = Path(tempfile.mkdtemp(prefix="diptych-test-", dir=parent))
    guard.watch_directory(path)
    return path

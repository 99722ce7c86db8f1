"""The address to listen at: tried before anything is started, and awaited afterwards."""

from __future__ import annotations

import errno
import socket
import time
from urllib.parse import urlsplit

from diptych.errors import DiptychError


class CannotServeError(DiptychError):
    """Serving cannot begin, or ended by itself; ``exit_code`` is for the process."""

    def __init__(self, problem: str, exit_code: int = 1) -> None:
        super().__init__(problem)
        self.exit_code = exit_code


def free_address(host: str, port: int) -> tuple[str, int]:
    """Returns the address to listen at, with a free port for port 0. Raises CannotServeError if the port is taken.

    The server lets its workers share a port, and would share the port with another server as well.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise CannotServeError(f'there is no host "{host}": use an address of this machine', 2) from None
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise CannotServeError(_worded(error, host, port)) from error
        return str(address[0]), int(probe.getsockname()[1])


def _worded(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} of {host} is in use: stop the program that uses it, or choose another port"
    if error.errno == errno.EACCES:
        return f"port {port} needs more rights than this user has: choose one above 1023"
    return f"cannot listen at {host}, port {port}: {error.strerror}"


def url_of(host: str, port: int) -> str:
    """Returns the URL at which this machine reaches a server of this address."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 (only named here)
    return f"http://[{shown}]:{port}" if ":" in shown else f"http://{shown}:{port}"


def await_listening(url: str) -> None:
    """Returns when connections to ``url`` are accepted, or after some seconds without."""
    # A worker opens its port just after the application says that it has started.
    address = urlsplit(url)
    for _ in range(200):
        try:
            with socket.create_connection((address.hostname or "", address.port or 0), timeout=1):
                return
        except OSError:
            time.sleep(0.01)

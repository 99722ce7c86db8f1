"""A guard process that runs a Valkey until standard input ends: until the process at the pipe's other end has gone.

The guard is run as a program, by its path and with nothing but the standard library. The end of a pipe comes
however the other process ends, SIGKILL included, and on every Unix; a handler in that process would not.
"""

from __future__ import annotations

import ctypes
import shutil
import signal
import subprocess
import sys
import threading

_PR_SET_PDEATHSIG = 1
_STOP_TIMEOUT_S = 5


def _die_with_guard() -> None:
    # If the guard itself is killed, no process is left to stop the Valkey. Linux can do it.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _stop_after_input(server: subprocess.Popen[bytes], directory: str) -> None:
    sys.stdin.buffer.read()
    server.terminate()
    try:
        server.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        server.kill()
    shutil.rmtree(directory, ignore_errors=True)


def main(binary: str, directory: str) -> int:
    """Runs ``binary`` with the valkey.conf of ``directory``; removes the directory when the input ends."""
    server = subprocess.Popen(  # noqa: S603
        [binary, f"{directory}/valkey.conf"],
        stdin=subprocess.DEVNULL,
        preexec_fn=_die_with_guard,
    )
    stopper = threading.Thread(target=_stop_after_input, args=(server, directory), daemon=True)
    stopper.start()
    code = server.wait()
    stopper.join(1)  # if the server was stopped, let its directory go too; if it failed, leave the log
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))

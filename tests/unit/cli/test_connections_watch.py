"""The watch of a process's connections: how often it looks."""

from __future__ import annotations

import threading
import time

from diptych.cli.serving.connections import Connections


class _Waiting(Connections):
    """Connections whose looks wait for a core, as they do while others have them all."""

    def __init__(self) -> None:
        super().__init__(0, 100, set())
        self.looks = 0
        self.three_times = threading.Event()

    def look(self) -> float:
        time.sleep(0.5)
        self.looks += 1
        if self.looks == 3:
            self.three_times.set()
        if self.looks > 3:
            threading.Event().wait()  # the thread lives as long as the process
        return 0.01


def test_a_look_that_waited_for_a_core_is_soon_followed_by_another() -> None:
    """The rest is four times what a look takes of a core: by the clock it was two seconds after each of these."""
    connections = _Waiting()
    connections.watch()
    assert connections.three_times.wait(4), f"{connections.looks} looks"

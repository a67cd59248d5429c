"""The simulator as a child process of the relay: the upstream where RELAY_UPSTREAM_BASE_URL is not set.

It is another process, so that its CPU and memory are not measured as the relay's. It ends at the end of its standard input,
which comes when the relay has ended, even if by SIGKILL.
"""

from __future__ import annotations

import select
import subprocess
import sys
from types import TracebackType
from typing import Self

from ..errors import ChildError

__all__ = ["SimulatorProcess"]

_START_SECONDS = 20.0
_STOP_SECONDS = 3.0


class SimulatorProcess:
    """The constructor starts the simulator, or raises ChildError; leaving the `with` block ends it. `url` ends in /v1."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "relay.simulator", "--port", "0", "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C must not end it while the relay's streams still drain
        )
        try:
            self.url = self._first_line().removeprefix("simulator ")
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def alive(self) -> bool:
        return self._process.poll() is None

    def stop(self) -> None:
        """End the process: close its standard input and send SIGTERM, then SIGKILL if it does not end."""
        process = self._process
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _first_line(self) -> str:
        output = self._process.stdout
        assert output is not None
        readable, _, _ = select.select([output], [], [], _START_SECONDS)
        line = output.readline().decode().strip() if readable else ""
        if not line.startswith("simulator http"):
            raise ChildError(
                f"the simulator did not start within {_START_SECONDS:g} s"
                if not readable
                else "the simulator ended at once",
                remedy="run `relay simulate` to see why, or set RELAY_UPSTREAM_BASE_URL to a real upstream",
            )
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

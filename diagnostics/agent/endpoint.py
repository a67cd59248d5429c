"""The agent's thread: listens on its unix socket, answers one request at a time, watches forked readings.

It sleeps in `poll` and wakes for a request, a running child or an open window; an agent that nobody asks costs nothing.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time

from ..errors import DiagnosticsError, ProtocolError, RefusedError
from ..protocol import (
    MAX_REQUEST_BYTES,
    VERSION,
    agent_socket,
    agents_folder,
    frame,
    private_folder,
    read_frame,
    reply_error,
    reply_result,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging
    from os import PathLike
    from typing import Any

    from .forked import Child
    from .operations import Forked
    from .state import State

__all__ = ["Endpoint"]

# A monitor sends its request at once; one that does not is not a monitor.
_PEER_PATIENCE_SECONDS = 2.0
_WATCH_SECONDS = 0.1


class Endpoint:
    """The socket `<root>/agents/<pid>.sock` and the thread that answers on it."""

    def __init__(self, root: str | PathLike[str], state: State) -> None:
        self.root = root
        self.state = state
        self.path = agent_socket(root, os.getpid())
        self._children: list[tuple[Child, Forked]] = []
        self._stopping = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe()
        self._listener = self._listen()
        self._thread = threading.Thread(target=self._serve, name="diagnostics-agent", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, close an open window, remove the socket. Children that still read are killed."""
        self._stopping.set()
        os.write(self._wake_writer, b"x")
        self._thread.join(timeout=5.0)
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def forget(self) -> None:
        """In a forked child of the service: let go of the parent's socket without removing it."""
        self._listener.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _listen(self) -> socket.socket:
        private_folder(self.root)
        private_folder(agents_folder(self.root))
        _remove(self.path)  # left by a process with our pid that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            listener.bind(self.path)
            listener.listen(16)
        except OSError:
            listener.close()
            raise
        return listener

    def _serve(self) -> None:
        # poll, not select: a service with thousands of streams has descriptors beyond select's 1,024.
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        try:
            while not self._stopping.is_set():
                busy = self._children or self.state.windows.kind
                ready = poll.poll(_WATCH_SECONDS * 1000 if busy else None)
                if any(fd == self._listener.fileno() for fd, _ in ready):
                    self._accept()
                if busy:
                    self.state.lag.ping()
                self._settle()
                overdue = self.state.windows.end_overdue()
                if overdue:
                    _log().warning("closed a %s window that its monitor had left open", overdue)
        finally:
            self.state.windows.end()
            self._listener.close()
            _remove(self.path)
            for child, _ in self._children:
                child.poll(float("inf"))

    def _settle(self) -> None:
        """Watch the children: do what waits for them as soon as it may be done, forget those that have ended."""
        now = time.monotonic()
        left = []
        for child, work in self._children:
            ended = child.poll(now)
            if not child.settled and (ended or work.ready()):
                child.settled = True
                work.after()
            if not ended:
                left.append((child, work))
        self._children = left

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        handed_over = False
        try:
            connection.settimeout(_PEER_PATIENCE_SECONDS)
            handed_over = self._answer(connection)
        except (OSError, ProtocolError) as error:
            # The monitor left in the middle, or is none. The service is not to be bothered with it.
            _log().debug("a request was not answered: %s", error)
        finally:
            if not handed_over:
                connection.close()

    def _answer(self, connection: socket.socket) -> bool:
        """Answer one request; True if a child answers instead and now owns the connection."""
        try:
            _check_peer(connection)
            self._settle()  # who has a child's answer finds done what waited for it
            from .operations import Forked  # with the first question: a process that nobody asks goes without it

            result = _perform(self.state, read_frame(connection, MAX_REQUEST_BYTES))
            if isinstance(result, Forked):
                from .forked import fork_reading

                child = fork_reading(
                    result.work,
                    connection,
                    seconds=result.seconds,
                    room_bytes=result.room_bytes,
                    remedy=result.remedy,
                )
                self._children.append((child, result))
                self.state.last_fork = {
                    "fork_seconds": child.fork_seconds,
                    "fork_cpu_seconds": child.fork_cpu_seconds,
                    "on_loop": child.on_loop,
                }
                self._settle()
                return True
            connection.sendall(frame(reply_result(result)))
            self.state.lag.ping()  # now, so that what the answer cost the service is not taken for its loop's lag
        except DiagnosticsError as error:
            connection.sendall(frame(reply_error(**error.to_dict())))
        except Exception as error:  # noqa: BLE001  # logged with its traceback, and told to whoever asked
            _log().exception("the agent failed on a request")
            connection.sendall(frame(reply_error("agent_failed", f"the agent failed: {type(error).__name__}: {error}")))
        return False


def _perform(state: State, message: dict[str, Any]) -> Any:
    from .operations import perform

    version, params = message.get("version"), message.get("params", {})
    if version != VERSION:
        raise ProtocolError(
            f"the monitor speaks version {version!r}, this agent speaks {VERSION}",
            remedy="run the same version of highwater-diagnostics in the service and in the monitor",
        )
    if not isinstance(params, dict):
        raise ProtocolError(f"params must be an object, not {type(params).__name__}")
    return perform(state, str(message.get("op")), params)


def _check_peer(connection: socket.socket) -> None:
    """Only the service's own user (and root) may ask: the folder's rights say so, and this says it again."""
    if not hasattr(socket, "SO_PEERCRED"):  # macOS; the folder's rights stand alone there
        return
    # struct ucred: pid, uid, gid
    credentials = memoryview(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)).cast("i")
    uid = credentials[1]
    if uid not in (0, os.geteuid()):
        raise RefusedError(f"uid {uid} may not ask an agent of uid {os.geteuid()}")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass  # as wanted


def _log() -> logging.Logger:
    import logging  # brings a megabyte to a service that does without it

    return logging.getLogger("diagnostics.agent")

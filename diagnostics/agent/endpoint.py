"""The agent's thread: listens on its unix socket, answers one request at a time, watches forked readings.

It sleeps in `poll` and wakes for a request, a running child or an open window; every few seconds it looks whether its socket
still has its name, since a cleaner of temporary folders may have removed it, and listens anew where it has not. An agent
without requests makes one system call in five seconds.
No failure of the agent is printed into the service: it is counted, kept in `State.troubles`, and reported to the monitor.
"""

from __future__ import annotations

import _socket
import os
import posix
import select
import time

from ..errors import DiagnosticsError, ProtocolError, RefusedError
from ..protocol import (
    MAX_REQUEST_BYTES,
    VERSION,
    agent_socket,
    agents_folder,
    frame,
    framed,
    private_folder,
    read_frame,
    reply_error,
    reply_result,
    socket_address,
)
from .background import Background, working
from .encoding import encoded
from .reading_cache import rest_if_due, stretches
from .unpatched import poll

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike
    from typing import Any

    from .forked import ForkedChild
    from .operations import Forked
    from .state import State

__all__ = ["Endpoint"]

# A monitor sends its request at once: a peer that sends none within this time is no monitor.
_PEER_PATIENCE_SECONDS = 2.0
_WATCH_SECONDS = 0.1
# Where no descriptor is free (EMFILE) a connection stays in the queue: accepting again at once would be a busy loop.
_AGAIN_SECONDS = 0.1
_NAMED_SECONDS = 5.0
_STOP_SECONDS = 5.0
# Processes with the same pid in containers that share the folder: a pod has a few.
_MOST_NAMES = 64


class Endpoint:
    """The socket `<root>/agents/<pid>.sock` and the thread that answers on it.

    path   of the socket; `<pid>-<n>.sock` where a living agent of another PID namespace listens at `<pid>.sock`
    """

    def __init__(self, root: str | PathLike[str], state: State) -> None:
        self.root = root
        self.state = state
        self.path = ""
        self._inode = 0
        self._children: list[tuple[ForkedChild, Forked]] = []
        self._stopping = False
        self._wake_reader, self._wake_writer = os.pipe()
        self._listener = self._listen()
        self._background = Background(self._serve, self._failed, self._wake)

    def start(self, within: Background | None = None) -> None:
        """Answer in a thread of its own, or, where this is called in that of `within`, in that thread after its work."""
        if within is None:
            self._background.start()
        else:
            within.hand_over(self._background)

    def run(self) -> None:
        """Answer in the thread that calls this, which must have nothing to do afterwards."""
        self._background.take_thread()

    def stop(self) -> None:
        """End the thread, close an open window, remove the socket. Forked readings that still run are killed."""
        self._stopping = True
        has_ended = self._background.leave(_STOP_SECONDS)
        self._listener.close()
        if self._has_its_name():  # else another agent's socket has that name by now
            _remove(self.path)
        if has_ended:  # else the thread still polls its pipe, and the process is about to end
            os.close(self._wake_reader)
            os.close(self._wake_writer)

    def close(self) -> None:
        """In the agent's own thread, which then returns: close and remove the socket, close the wake-up pipe."""
        self._listener.close()
        if self._has_its_name():
            _remove(self.path)
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def forget(self) -> None:
        """In a forked child of the service: close the copies of the parent's descriptors; its socket stays in the folder."""
        self._listener.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _wake(self) -> None:
        posix.write(self._wake_writer, b"x")

    def _failed(self, error: BaseException) -> None:
        self.state.trouble(f"the agent's thread ended: {type(error).__name__}: {error}")

    def _listen(self) -> _socket.socket:
        private_folder(self.root)
        private_folder(agents_folder(self.root))
        self.path = _free_path(self.root)
        listener = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            _at(self.path, listener.bind)
            listener.listen(16)
            self._inode = os.lstat(self.path).st_ino
        except OSError:
            listener.close()
            raise
        return listener

    def _has_its_name(self) -> bool:
        """Whether `path` still leads to this socket: a cleaner of temporary folders may have removed it."""
        try:
            return os.lstat(self.path).st_ino == self._inode
        except OSError:
            return False

    def _listen_anew(self, waiting: Any) -> None:
        """Listen on a new socket: `path` is gone, and no monitor can find the old one. A failure is tried again later."""
        try:
            listener = self._listen()
        except Exception as error:  # noqa: BLE001  # a full disk, a folder of another user's: reported, and tried again
            self.state.trouble(
                f"the agent's socket was removed and cannot be made again: {type(error).__name__}: {error}"
            )
            return
        self.state.trouble("the agent's socket had been removed, and was made again")
        waiting.unregister(self._listener)
        waiting.register(listener, select.POLLIN)
        self._listener.close()
        self._listener = listener

    def _serve(self) -> None:
        """The thread's work. It returns before a fork of the service, and is called again after it with the same state."""
        waiting = poll()
        waiting.register(self._listener, select.POLLIN)
        waiting.register(self._wake_reader, select.POLLIN)
        # The kernel kills a child with the thread that forked it (PR_SET_PDEATHSIG): the thread stays while there is a child.
        while (self._children and not self._stopping) or not self._background.left():
            if self.state.leaving:
                self._end_readings()
                if self.state.leave is not None:
                    self.state.leave()
                return
            busy = self._children or self.state.window_kind
            ready = [fd for fd, _ in waiting.poll(1000 * (_WATCH_SECONDS if busy else _NAMED_SECONDS))]
            if self._wake_reader in ready:
                posix.read(self._wake_reader, 64)
                continue
            if not ready and not busy and not self._has_its_name():
                self._listen_anew(waiting)
                continue
            try:
                going = self._attend(self._listener.fileno() in ready, bool(busy))
            except Exception as error:  # noqa: BLE001  # one failure must not end the agent
                self.state.trouble(f"the agent failed: {type(error).__name__}: {error} ({_place(error)})")
                going = False
            if not going:
                self._background.pause(_AGAIN_SECONDS)
        if self._stopping:
            self._end_readings()

    def _end_readings(self) -> None:
        if self.state.window_kind:
            self.state.windows.end()
        for child, _ in self._children:
            child.poll(float("inf"))

    def _attend(self, requested: bool, busy: bool) -> bool:
        """Accept a waiting request, watch children and windows; False where accepting failed and must be tried again later."""
        going = not requested or self._accept()
        if busy:
            self.state.lag.ping()
        self._settle()
        overdue = self.state.window_kind and self.state.windows.end_overdue()
        if overdue:
            self.state.trouble(f"closed a {overdue} window that its monitor had left open")
        return going

    def _settle(self) -> None:
        """Poll the children: run each one's `after` as soon as it is ready, drop those that have ended."""
        now = time.monotonic()
        running = []
        for child, work in self._children:
            ended = child.poll(now)
            if not child.settled and (ended or work.ready()):
                child.settled = True
                with working():
                    work.after()
            if not ended:
                running.append((child, work))
        self._children = running

    def _accept(self) -> bool:
        """Accept one connection and answer it; False where the process has no descriptor left for it."""
        try:
            # The C module's own: `socket.socket` may be gevent's, and its `accept` would wait for gevent's loop.
            descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except OSError as error:
            self.state.trouble(f"a monitor's connection could not be taken: {error}")
            return False
        connection = _socket.socket(fileno=descriptor)
        handed_over = False
        try:
            connection.settimeout(_PEER_PATIENCE_SECONDS)
            handed_over = self._answer(connection)
        except (OSError, ProtocolError) as error:
            # The peer left in the middle, or is no monitor: no business of the service.
            self.state.trouble(f"a request was not answered: {error}")
        finally:
            if not handed_over:
                connection.close()
        return True

    def _answer(self, connection: _socket.socket) -> bool:
        """Answer one request; True if a child answers instead and now owns the connection. Raises OSError."""
        try:
            _check_peer(connection)
            if not connection.recv(1, _socket.MSG_PEEK):
                return False  # it wanted to know who listens here, as a monitor does that meets this agent, and no more
            self._settle()  # a client that has a child's answer may rely on that child's `after`
            with working():
                import json  # noqa: F401  # what frames are read and written with
            message = read_frame(connection, MAX_REQUEST_BYTES)
        except DiagnosticsError as error:
            connection.sendall(frame(reply_error(**error.to_dict())))
            return False
        try:
            with working():
                from .operations import Forked  # imported by the first request: an idle agent does without it

                stretches.begin()
                result = _perform(self.state, message)
            if isinstance(result, Forked):
                self._hand_over(connection, result)
                return True
            rest_if_due()
            reply = framed(encoded(reply_result(result)))
            stretches.end(str(message.get("op")))  # one that there is: it has been performed
        except DiagnosticsError as error:
            reply = frame(reply_error(**error.to_dict()))
        except Exception as error:  # noqa: BLE001  # reported to the client, with the line that raised it
            problem = f"the agent failed: {type(error).__name__}: {error} ({_place(error)})"
            self.state.trouble(problem)
            reply = frame(reply_error("agent_failed", problem))
        connection.sendall(reply)
        self.state.lag.ping()  # now, so that the next lag is not of the time that this answer held the GIL
        return False

    def _hand_over(self, connection: _socket.socket, reading: Forked) -> None:
        """Fork the child that answers over `connection`."""
        with working():
            from .forked import fork_reading
            from .readings.allocation.by_ctypes import libc

            libc()  # imports ctypes, with which the child is bound to its parent

        child = fork_reading(
            reading.work, connection, seconds=reading.seconds, room_bytes=reading.room_bytes, remedy=reading.remedy
        )
        self._children.append((child, reading))
        self.state.last_fork = {
            "fork_seconds": child.fork_seconds,
            "fork_cpu_seconds": child.fork_cpu_seconds,
            "on_loop": child.on_loop,
        }
        self._settle()


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


def _place(error: BaseException) -> str:
    """Where an exception was raised, as `file:line`; importing `traceback` for it would cost a megabyte."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "no place known"


def _check_peer(connection: _socket.socket) -> None:
    """Only root and the service's own user may send requests: the folder's mode says so, and the peer's uid is checked too."""
    if not hasattr(_socket, "SO_PEERCRED"):  # macOS: the folder's mode alone protects the socket
        return
    # struct ucred: pid, uid, gid
    credentials = memoryview(connection.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)).cast("i")
    uid = credentials[1]
    if uid not in (0, os.geteuid()):
        raise RefusedError(f"uid {uid} may not ask an agent of uid {os.geteuid()}")


def _free_path(root: str | PathLike[str]) -> str:
    """The first of this pid's socket names at which nobody listens; a socket that a killed process left there is removed."""
    for number in range(1, _MOST_NAMES):
        path = agent_socket(root, os.getpid(), number)
        if not os.path.lexists(path) or not _listened_on(path):
            _remove(path)
            return path
    raise RefusedError(
        f"{_MOST_NAMES} agents of pid {os.getpid()} listen in {agents_folder(root)}",
        remedy="give each service a DIAGNOSTICS_DIR of its own",
    )


def _listened_on(path: str) -> bool:
    probe = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        probe.setblocking(False)
        _at(path, probe.connect)
    except BlockingIOError:  # its queue is full
        return True
    except OSError:
        return False
    finally:
        probe.close()
    return True


def _at(path: str, call: Callable[[str], object]) -> None:
    """Call a unix socket's `bind` or `connect` with the address of `path`."""
    address, folder = socket_address(path)
    try:
        call(address)
    finally:
        if folder is not None:
            os.close(folder)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # The file is gone, or this process has dropped its privileges and may not write there any more: then the monitor
        # removes the socket once the process has ended.
        pass

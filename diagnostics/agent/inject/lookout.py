"""Waits until this process serves, then starts its agent; a process that never serves keeps one sleeping thread, which ends
for each moment in which the process forks.

The law of this file: it is loaded at the start of every Python process of the service, so it imports next to nothing. The
agent itself is imported only when there is something to observe, by then beside a server that has imported most of it.

To serve is to wait for connections on a listening TCP socket. Holding one is not enough: the parent of several workers holds
the socket that they accept on, and a child that was forked off a worker inherits it. So a process serves where
- an epoll instance of its own watches a listening socket (asyncio, uvloop, trio, tokio, gthread), or
- it holds a listening socket that nobody's epoll watches (blocking accept, select, poll), for a second, and none of its
  children holds the same one;
and never by what it has inherited from a process that served.
"""

from __future__ import annotations

import os
import sys
import time

from .. import at_fork
from ..background import Background, in_reading_fork, working

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

__all__ = ["start"]

# Most servers listen within seconds of their start: look every 0.1 s for 10 s, every 2 s later.
_FAST_LOOKS, _FAST_SECONDS, _SLOW_SECONDS = 100, 0.1, 2.0
# For a moment before it starts its workers, a parent is the only holder of their listening socket.
_ALONE_SECONDS = 1.0


class _Lookout:
    """The listening sockets and epoll instances of this process, and those that it has inherited from one that served."""

    def __init__(self) -> None:
        self.always = False
        self.polls: set[int] = set()  # descriptors of epoll instances that watch a listening socket
        self.listeners: set[str] = set()  # inodes of listening sockets
        self.inherited_polls: set[int] = set()
        self.inherited_listeners: set[str] = set()
        self._alone_since: float | None = None
        self._looks = 0

    def begin(self) -> None:
        if self.always:
            _start_agent()
        else:
            self._watch_in_background()

    def after_fork(self) -> None:
        """In the child: start the thread again, and take the parent's sockets and epoll instances for the parent's."""
        self.inherited_polls |= self.polls
        self.inherited_listeners |= self.listeners
        self.polls, self.listeners, self._alone_since = set(), set(), None
        self._looks = 0
        lifecycle = sys.modules.get(f"{__package__.rpartition('.')[0]}.lifecycle")
        if lifecycle is not None:  # now: lifecycle's own hook runs later, and would stop what is started here
            lifecycle.let_go_of_parents()
        self._watch_in_background()

    def _watch_in_background(self) -> None:
        self._background = Background(self._watch, _not_watching)
        try:
            self._background.start()
        except RuntimeError as error:
            _not_watching(error)

    def _watch(self) -> None:
        # Not at once: most forked children execute another program.
        while not self._background.sleep(_FAST_SECONDS if self._looks < _FAST_LOOKS else _SLOW_SECONDS):
            self._looks += 1
            if self.always or self.serves():
                with working():
                    _start_agent(self._background)
                return

    def serves(self) -> bool:
        """Whether this process serves now; see the top of this file. Reads its /proc entries once."""
        sockets, polls = _descriptors("self")
        listening = _listening(sockets)
        descriptors = {fd for fd, inode in sockets.items() if inode in listening}
        self.polls = {fd for fd in polls - self.inherited_polls if descriptors & _watched(fd)}
        if self.polls:
            self.listeners = listening
            return True
        own = listening - self.inherited_listeners
        if not own or any(own & inodes for inodes in _sockets_of_children()):
            self._alone_since = None
            return False
        now = time.monotonic()
        self._alone_since = self._alone_since or now
        if now - self._alone_since < _ALONE_SECONDS:
            return False
        self.listeners = own
        return True


def start(always: bool) -> None:
    """Start the thread that waits until this process serves; with `always`, start the agent at once (for scripts)."""
    if os.environ.get("DIAGNOSTICS_HEAP", "off") != "off":
        from .. import heap

        heap.begin()  # now: many services allocate most of their memory while they start
    _this_process.always = always
    _this_process.begin()


def _start_agent(within: Background | None = None) -> None:
    from ...errors import DiagnosticsError

    lifecycle = _lifecycle()
    try:
        lifecycle.start_injected(within)
    except (DiagnosticsError, OSError, RuntimeError) as error:
        _say(str(error))


def _not_watching(error: BaseException) -> None:
    _say(f"{type(error).__name__}: {error}")


def _say(why: str) -> None:
    """One line on standard error: the service may not have set up its logging yet."""
    if sys.stderr is not None:
        print(f"diagnostics: process {os.getpid()} runs without its agent: {why}", file=sys.stderr)


def _lifecycle() -> ModuleType:
    from .. import lifecycle

    return lifecycle


def _descriptors(process: str) -> tuple[dict[int, str], set[int]]:
    """Sockets (descriptor -> inode) and epoll instances (descriptors) of a process; empty if it has ended."""
    sockets: dict[int, str] = {}
    polls: set[int] = set()
    folder = f"/proc/{process}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return sockets, polls
    for name in names:
        try:
            link = os.readlink(f"{folder}/{name}")
        except OSError:  # closed since
            continue
        if link.startswith("socket:["):
            sockets[int(name)] = link[8:-1]
        elif link == "anon_inode:[eventpoll]":
            polls.add(int(name))
    return sockets, polls


def _listening(sockets: dict[int, str]) -> set[str]:
    """The inodes of those of this process's sockets (descriptor -> inode) that listen for TCP connections.

    By getsockopt, 2 µs a socket. /proc/net/tcp takes 9 µs for each connection in the network namespace, and a parent that
    never serves would read it again and again.
    """
    if not sockets:
        return set()
    import _socket  # the C part of `socket`; importing that builds enums, which is slow

    listening: set[str] = set()
    for fd, inode in sockets.items():
        try:
            borrowed = _socket.socket(fileno=fd)
        except OSError:  # closed since, or no socket any more
            continue
        try:
            accepts = borrowed.getsockopt(_socket.SOL_SOCKET, _socket.SO_ACCEPTCONN)
        except OSError:  # closed since
            accepts = 0
        finally:
            borrowed.detach()  # the descriptor is the service's: this object must not close it
        if accepts and borrowed.family in (_socket.AF_INET, _socket.AF_INET6):
            listening.add(inode)
    return listening


def _watched(poll: int) -> set[int]:
    """The descriptors that an epoll instance of this process watches: lines `tfd:  7 events: 19 ...` of its fdinfo."""
    return {int(line.split()[1]) for line in _lines(f"/proc/self/fdinfo/{poll}") if line.startswith("tfd:")}


def _sockets_of_children() -> Iterator[set[str]]:
    for thread in os.listdir("/proc/self/task"):
        for line in _lines(f"/proc/self/task/{thread}/children"):
            for child in line.split():
                yield set(_descriptors(child)[0].values())


def _lines(path: str) -> Iterator[str]:
    """The lines of a file of /proc, one at a time: the fdinfo of an epoll instance may have thousands."""
    try:
        with open(path, encoding="utf-8") as file:
            yield from file
    except OSError:  # the process has ended, or closed the descriptor
        return


_this_process = _Lookout()


def _after_fork_in_child() -> None:
    if not in_reading_fork():
        _this_process.after_fork()


at_fork.register(owner=__package__.rpartition(".")[0], after_in_child=_after_fork_in_child)

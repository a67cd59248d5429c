"""The agent's thread in the service's process: it never prints, imports nothing while the service forks, and does not exist
then where that would be warned of.

A lock of a module that a thread is importing stays locked in a forked child, where that thread is not: whoever imports the
module there, be it the service, would wait for ever. So a fork waits for our thread's work (`working`), for some time.

From Python 3.12 on `os.fork()` warns wherever the process has a second thread ("use of fork() may lead to deadlocks in the
child"), and a service that forks must not be warned because of us. So before a fork our sleeping threads end, and begin
again after it:

- only where they are the only ones beside the main thread, which forks: a service with threads of its own is warned for these;
- the kernel's count of threads is awaited, since Python reads that;
- after the fork they are started again, on 3.13 by a "pending call", which Python makes when `os.fork()` has returned: 3.13
  alone counts the threads after the at-fork hooks have run.

A thread that is just answering does not end within the patience; then it stays, and the warning comes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
import time

from . import at_fork
from .unpatched import allocate_lock, get_ident, get_native_id, sleep, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

__all__ = ["Background", "in_reading_fork", "reading_fork", "working"]

_FORK_WARNS = sys.version_info >= (3, 12)
_COUNTED_AFTER_THE_HOOKS = sys.version_info[:2] == (3, 13)
# A sleeping thread ends within a tenth of a millisecond, on a busy machine once it gets a core. One that does not is busy.
_ASIDE_SECONDS = 0.25
# Work that imports takes some milliseconds. It may wait in turn for a module that the forking thread imports.
_WORK_SECONDS = 0.25

# Signals of the service are blocked in our thread: one that the kernel delivered here would not interrupt the main thread's
# read or sleep, and its Python handler would run only after that. Faults are not blocked: they go to the thread at fault.
_FAULTS = {"SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}


def _not_ours() -> set[int]:
    faults = {getattr(_signal, name) for name in _FAULTS}
    return {number for number in _signal.valid_signals() if number not in faults}


class Background:
    """A thread that runs `work`, which must return soon after `left()` is True.

    Before a fork of the service the thread ends; after it `work` is called again in a new thread of the same process.
    work     sleeps by `sleep` or `pause`, or in a `poll` of its own that `wake` interrupts
    failed   called, in the thread, with the exception that `work` raised: Python would print it to standard error
    """

    def __init__(
        self, work: Callable[[], None], failed: Callable[[BaseException], None], wake: Callable[[], None] | None = None
    ) -> None:
        self._work = work
        self.failed = failed
        self._gate = allocate_lock()
        self._gate.acquire()
        self._wake = wake or self._open_gate
        self._ended: Any = None
        self._tid = 0
        # A request to leave: one item, until the thread pops it and leaves, or `leave` gives up and pops it itself.
        # `list.pop` is atomic: not even a signal handler that forks can run in between.
        self._leave_requests: list[bool] = []
        self._next: Background | None = None

    def start(self) -> None:
        """Raises RuntimeError where the system refuses a new thread."""
        self._ended = ended = allocate_lock()
        ended.acquire()
        _running.append(self)
        mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, _not_ours())
        try:
            start_new_thread(self._run, (ended,))
        except RuntimeError:
            _running.remove(self)
            raise
        finally:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)

    def take_thread(self) -> None:
        """Do the work in the thread that calls this, as if `start` had made it. A second thread costs what `hand_over` says.

        The thread must end after this, and have the service's signals blocked.
        """
        self._ended = ended = allocate_lock()
        ended.acquire()
        _running.append(self)
        self._run(ended)

    def hand_over(self, to: Background) -> None:
        """In the thread: once this work has returned, the thread does `to`'s.

        A second thread would have a stack and a malloc arena of its own, and glibc keeps those of the first: some 50 KiB.
        """
        to._ended, to._tid = self._ended, self._tid
        self._next = to

    def sleep(self, seconds: float) -> bool:
        """In the thread: sleep up to `seconds`; True if it must leave."""
        self.pause(seconds)
        return self.left()

    def pause(self, seconds: float) -> None:
        """In the thread: sleep up to `seconds`, less where `leave` wakes it."""
        self._gate.acquire(True, seconds)

    def left(self) -> bool:
        """In the thread, between two steps of its work: whether it must leave. After True, `work` must return at once."""
        return _popped(self._leave_requests)

    def leave(self, patience: float) -> bool:
        """End the thread; False if it was busy for all of `patience` seconds and therefore goes on."""
        self._leave_requests.append(True)
        self._wake()
        return self._gone(time.monotonic() + patience) or not _popped(self._leave_requests)

    def _gone(self, deadline: float) -> bool:
        if not self._ended.acquire(True, max(deadline - time.monotonic(), 0)):
            return False
        while os.path.exists(f"/proc/self/task/{self._tid}"):  # its Python code has ended, the kernel's thread not yet
            if time.monotonic() > deadline:
                return False
            sleep(0.0001)
        return True

    def _run(self, ended: Any) -> None:
        self._tid = get_native_id()
        doing: Background | None = self
        try:
            while doing is not None:
                doing = doing.run()
        finally:
            ended.release()

    def run(self) -> Background | None:
        """In the thread: do the work; returns what the thread is to do next."""
        try:
            self._work()
        except BaseException as error:  # noqa: BLE001  # else Python would print it with a traceback
            self.failed(error)
        finally:
            following, self._next = self._next, None
            if self in _running:
                at = _running.index(self)
                _running[at : at + 1] = [] if following is None else [following]
        return following

    def _open_gate(self) -> None:
        if self._gate.locked():
            self._gate.release()


def _popped(requests: list[bool]) -> bool:
    try:
        requests.pop()
    except IndexError:
        return False
    return True


_running: list[Background] = []
_aside: list[Background] = []
_reading_fork = 0  # the thread that forks a reading's child; a thread keeps its `get_ident` in its child
_work_lock = allocate_lock()
_forking: set[int] = set()  # threads that have `_work_lock` while they fork


class working:  # noqa: N801  # read as a statement: `with working():`
    """Surrounds what the agent's thread does that may import a module; the service forks before it or after it."""

    def __enter__(self) -> None:
        self._lock = _work_lock
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class reading_fork:  # noqa: N801  # read as a statement: `with reading_fork():`
    """Surrounds the agent's own fork of a reading's child: the agent's at-fork hooks do nothing for it."""

    def __enter__(self) -> None:
        global _reading_fork
        _reading_fork = get_ident()

    def __exit__(self, *_: object) -> None:
        global _reading_fork
        _reading_fork = 0


def in_reading_fork() -> bool:
    """Whether this thread forks, or has forked, a reading's child; not where the service forks in another at that moment."""
    return bool(_reading_fork == get_ident())


def _before_fork() -> None:
    if in_reading_fork():
        return
    _set_aside()
    if _work_lock.acquire(True, _WORK_SECONDS):
        _forking.add(get_native_id())


def _set_aside() -> None:
    if not _FORK_WARNS or not _running or get_native_id() != os.getpid():
        return
    try:
        threads = len(os.listdir("/proc/self/task"))
    except OSError:  # no /proc; Python cannot count either
        return
    if threads == 1 + len(_running):
        deadline = time.monotonic() + _ASIDE_SECONDS
        _aside[:] = [each for each in list(_running) if each.leave(deadline - time.monotonic())]


def _after_fork_in_parent() -> None:
    if in_reading_fork():
        return
    if get_native_id() in _forking:
        _forking.remove(get_native_id())
        _work_lock.release()
    if not _aside:
        return
    if _COUNTED_AFTER_THE_HOOKS:
        _once_back_in(sys._getframe(1), _come_back)
    else:
        _come_back()


def _after_fork_in_child() -> None:
    """No thread survives a fork. Each owner of one starts it again in the child, by a hook of its own."""
    if not in_reading_fork():
        global _reading_fork, _work_lock
        _reading_fork = 0
        _work_lock = allocate_lock()  # the old one may be that of a thread that is not here
        _forking.clear()
        _running.clear()
        _aside.clear()


def _come_back() -> None:
    while _aside:
        each = _aside.pop()
        try:
            each.start()
        except RuntimeError as error:
            each.failed(error)


def _once_back_in(forking: FrameType, call: Callable[[], None]) -> None:
    """Run `call` on the main thread once `forking`, the frame that called `os.fork`, runs again or has ended.

    Runs it at once where this Python has no pending calls, or their queue is full.
    """
    try:
        from ctypes import PYFUNCTYPE, c_int, c_void_p, pythonapi
    except ImportError:  # a Python built without it
        call()
        return

    waited_for = [forking]

    def pending(_: Any) -> int:
        running = walked = sys._getframe(1)
        while walked is not None and walked not in waited_for:
            walked = walked.f_back  # type: ignore[assignment]  # None at the outermost
        # Else another at-fork hook runs, still within `os.fork()`: this function is queued once more.
        if walked is None or running in waited_for or pythonapi.Py_AddPendingCall(_pending, None):
            waited_for.clear()  # the frame would stay alive, with its locals
            call()
        return 0

    # A global, because the queue of pending calls holds no reference. One is enough: no other fork can come before the call.
    global _pending
    _pending = PYFUNCTYPE(c_int, c_void_p)(pending)
    if pythonapi.Py_AddPendingCall(_pending, None):  # the queue is full
        call()


_pending: Any = None

at_fork.register(
    owner=__package__, before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child
)

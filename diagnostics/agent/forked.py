"""Heavy readings run in a forked child, which has the service's memory as it was, and reads without stalling the service.

The traps, and the measure against each:
- the child holds every socket of the service: all but the one to the monitor are closed first;
- forking on a helper thread runs other threads' destructors in the child: the fork is made on the loop's own thread, and on
  the agent's only where no loop comes to it;
- inherited signal handlers and the wake-up fd would write into the parent's loop: they are reset;
- the child must not outlive the service (a restart would meet EADDRINUSE): it asks the kernel to die with it;
- exit handlers, finally blocks and at-fork threads are the service's: the child leaves by `os._exit`;
- on a machine short of cores it would compete with the service: it runs at a higher nice value;
- while it lives the service pays for every page it first touches: the child is watched and killed past its time or memory.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import gc
import os
import posix
import resource
import time
import warnings

from ..errors import DiagnosticsError
from ..protocol import READING_NAME, frame, reply_error, reply_result
from .background import reading_fork
from .loops.asyncio_tasks import hold_for_child, let_go
from .loops.running import call_on_loop, running_loops

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable
    from typing import Any

__all__ = ["ForkedChild", "fork_reading", "max_extra_bytes"]

_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15
# Granted for a service of any size: walking the interpreter's own objects alone takes some tens of MiB.
_LEAST_EXTRA_BYTES = 256 * 1024**2
# Where all cores are busy a child at nice 10 gets a tenth of the service's share, and a reading of two seconds took forty;
# until it ends the service pays for shared pages. At nice 3 it gets half.
_NICENESS = 3
_LOOP_PATIENCE_SECONDS = 1.0


class ForkedChild:
    """A forked reading that runs now.

    fork_seconds      wall-clock seconds that the fork stalled the thread that made it
    fork_cpu_seconds  CPU seconds of that thread in the fork
    on_loop           whether that was an event loop's own thread
    settled           whether the endpoint has run `Forked.after`, which is due once the child is ready
    max_extra_bytes   how much larger than the service's resident set the child's may grow
    remedy            advice to the user where the child's memory or time was not enough
    """

    def __init__(
        self,
        pid: int,
        connection: _socket.socket,
        *,
        deadline: float,
        own_rss_bytes: int,
        max_extra_bytes: int,
        remedy: str,
        fork_seconds: float,
        fork_cpu_seconds: float,
        on_loop: bool,
    ) -> None:
        self.pid = pid
        self.connection = connection
        self.deadline = deadline
        self.began = time.monotonic()
        self.own_rss_bytes = own_rss_bytes
        self.max_extra_bytes = max_extra_bytes
        self.remedy = remedy
        self.fork_seconds = fork_seconds
        self.fork_cpu_seconds = fork_cpu_seconds
        self.on_loop = on_loop
        self.settled = False

    def poll(self, now: float) -> bool:
        """Look after the child once, kill it past its limits; True when it has ended. `now`: `time.monotonic()` seconds."""
        try:
            pid, status = posix.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:  # the service reaps all children itself
            pid, status = self.pid, 0
        if pid:
            if os.WIFSIGNALED(status):
                self._report(f"the forked reading was ended by signal {os.WTERMSIG(status)}")
            self.connection.close()
            return True
        if now > self.deadline:
            seconds = min(now, time.monotonic()) - self.began  # `now` is infinite where the service stops
            self._kill(f"the forked reading was not done after {seconds:.0f} s, in which it used {_cpu_text(self.pid)}")
            return True
        rss = _rss_bytes(self.pid)
        extra = (rss or 0) - self.own_rss_bytes
        if extra > self.max_extra_bytes:
            self._kill(
                f"the forked reading needed {_mib(extra)} beside the {_mib(self.own_rss_bytes)} of the service, more than "
                f"the {_mib(self.max_extra_bytes)} that it may: three times the service, and at most half of what is free"
            )
            return True
        return False

    def _kill(self, why: str) -> None:
        os.kill(self.pid, _signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            posix.waitpid(self.pid, 0)
        self._report(why)
        self.connection.close()

    def _report(self, why: str) -> None:
        # The child sends its answer in one piece at its end, so a killed child has sent nothing. A monitor that is gone
        # as well gets no report.
        with contextlib.suppress(OSError):
            self.connection.sendall(frame(reply_error("reading_killed", why, self.remedy)))


def fork_reading(
    work: Callable[[], dict[str, Any]],
    connection: _socket.socket,
    *,
    seconds: float,
    room_bytes: int | None = None,
    remedy: str = "",
) -> ForkedChild:
    """Fork, run `work` in the child and send its result over `connection`; the caller must `poll` the returned child.

    seconds      how long the child may run
    room_bytes   memory that is free in the machine or the service's cgroup; None: not known
    remedy       advice to the user where the child's time or memory is not enough
    Raises OSError where the system refuses to fork.
    """
    # Not in the child: another thread may hold the import lock at the fork.
    from .readings.allocation.by_ctypes import libc  # half a MiB

    prctl = libc().prctl
    own_rss = _rss_bytes(os.getpid()) or 0
    outcome: list[tuple[int, float, float] | OSError] = []

    def fork() -> None:
        began, cpu = time.monotonic(), time.thread_time()
        hold_for_child()
        try:
            pid = _fork()
        except OSError as error:
            let_go()
            outcome.append(error)
            return
        if pid == 0:
            _live(work, connection, prctl)
        let_go()
        outcome.append((pid, time.monotonic() - began, time.thread_time() - cpu))

    on_loop = any(call_on_loop(loop, fork, _LOOP_PATIENCE_SECONDS) for loop in running_loops()[:1])
    if not on_loop:
        fork()
    if isinstance(outcome[0], OSError):
        raise outcome[0]
    pid, fork_seconds, fork_cpu_seconds = outcome[0]
    return ForkedChild(
        pid,
        connection,
        deadline=time.monotonic() + seconds,
        own_rss_bytes=own_rss,
        max_extra_bytes=max_extra_bytes(own_rss, room_bytes),
        remedy=remedy,
        fork_seconds=fork_seconds,
        fork_cpu_seconds=fork_cpu_seconds,
        on_loop=on_loop,
    )


def max_extra_bytes(own_rss_bytes: int, room_bytes: int | None) -> int:
    """How many bytes a forked reading may allocate beside what it shares with a service of this resident set.

    A walk keeps up to 200 bytes for each object, of which small ones take 70 to 100; a snapshot of tracemalloc 246 for each
    block, for which the service itself has kept 105. Half of what is free is left to the service, which goes on
    meanwhile and pays for pages that it shares with the child.
    """
    needed = max(_LEAST_EXTRA_BYTES, 3 * own_rss_bytes)
    return needed if room_bytes is None else min(needed, room_bytes // 2)


def _fork() -> int:
    with reading_fork(), warnings.catch_warnings():
        # Python 3.12 warns that forking a process with threads may deadlock the child. This child takes no lock that another
        # thread may hold, is watched, and is killed past its time.
        warnings.simplefilter("ignore", DeprecationWarning)
        return posix.fork()  # gevent's `os.fork` and `os.waitpid` would want its loop on this thread


def _live(
    work: Callable[[], dict[str, Any]], connection: _socket.socket, prctl: Callable[[int, int | bytes], object]
) -> None:
    """The child's whole life."""
    code = 1
    try:
        prctl(_PR_SET_PDEATHSIG, _signal.SIGKILL)
        prctl(_PR_SET_NAME, READING_NAME.encode())
        os.nice(_NICENESS)
        gc.disable()
        _thaw()
        _signal.set_wakeup_fd(-1)
        for number in (_signal.SIGTERM, _signal.SIGINT, _signal.SIGCHLD):
            _signal.signal(number, _signal.SIG_DFL)
        fd = connection.fileno()
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        os.closerange(0, fd)
        os.closerange(fd + 1, limit if limit != resource.RLIM_INFINITY else 1 << 20)
        connection.settimeout(30)
        try:
            reply = reply_result(work())
        except DiagnosticsError as error:
            reply = reply_error(**error.to_dict())
        except Exception as error:  # noqa: BLE001  # it is reported, and the child ends either way
            reply = reply_error("reading_failed", f"the forked reading failed: {type(error).__name__}: {error}")
        connection.sendall(frame(reply))
        code = 0
    finally:
        os._exit(code)


def _thaw() -> None:
    """Put objects that the service has frozen (`gc.freeze`) back in the collector's lists, where the child's readings look."""
    if gc.get_freeze_count():
        # Frozen first, so that younger objects are listed behind the older, frozen ones: a census takes later ones for younger.
        gc.freeze()
        gc.unfreeze()


def _rss_bytes(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, IndexError, ValueError):
        return None


def _cpu_text(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:  # the process's name is any bytes
            fields = file.read().rpartition(")")[2].split()
        return f"{(int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK'):.1f} s of CPU time"
    except (OSError, IndexError, ValueError):  # it has ended meanwhile
        return "an unknown part of a core"


def _mib(count: int) -> str:
    return f"{count / 1024**2:,.0f} MiB"

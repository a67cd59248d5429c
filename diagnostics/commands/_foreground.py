"""Runs a command as if it had been started in place of this process: signals, terminal and exit status are the command's.

The command is a child in this process's own process group, as a shell's child in a script is. So signals from the terminal
(Ctrl-C, Ctrl-\\, Ctrl-Z, a new window size, hang-up) reach it from the kernel, once, and the kernel also decides which group
may read from the terminal. Signals sent to this process alone are forwarded to the command.

To tell these apart, there is a witness: a child in the same group that has all signals blocked and does nothing. A signal
that is pending there as well was sent to the whole group (or to a whole cgroup): the command has it already, and a second
SIGINT would make it end without a clean shutdown.

Where the command stops by a signal that this process has received, too, this process stops, so that the shell sees a stopped
job; `fg` and `bg` continue both. This process ends as the command did: with its exit code, or by the same signal. Orphans
(this may be the first process of a container) are reaped.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

from ..errors import UsageError

__all__ = ["Foreground", "end_like"]

_STOPS: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
# These end the wait for the monitor's end.
_ENDS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP})
# Python ignores these two, and a program that it executes would inherit that.
_PYTHON_IGNORES: Final = (signal.SIGPIPE, signal.SIGXFSZ)
# The kernel signals a group at once; a tool that kills a cgroup signals process by process, within this time.
_WITNESS_SECONDS: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1


class Foreground:
    """A command in the foreground: call `start`, then `wait`. Blocks all signals of this process, for good.

    pid   the command's, once it is started
    """

    def __init__(self, ended: Callable[[int], None]) -> None:
        """`ended` is called with the pid of any other child that has ended."""
        self._ended = ended
        # With SIGCHLD ignored, which may be inherited from a parent, the exit status of children would be lost.
        self._sigchld = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        self.pid = 0
        self._status: int | None = None
        self._asked_to_stop: set[int] = set()
        self._stopped_by: int | None = None
        self._known_to_all: set[int] = set()
        self._witness = _Witness()

    def start(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Start the command. Raises UsageError where there is no such program."""
        read_end, write_end = os.pipe()
        own = os.getpid()
        prctl = ctypes.CDLL(None).prctl
        pid = os.fork()
        if pid == 0:
            try:
                # SIGKILL cannot be forwarded: the kernel kills the command with this process.
                prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
                if os.getppid() == own:
                    self._become(command, environment)
            except OSError as error:
                os.write(write_end, f"{error.strerror or error}".encode())
            finally:
                os._exit(127)
        os.close(write_end)
        with open(read_end, "rb") as reader:
            problem = reader.read().decode()
        if problem:
            os.waitpid(pid, 0)
            self._witness.end()
            raise UsageError(f"cannot run {command[0]!r}: {problem}", remedy="give the command as in a shell")
        self.pid = pid

    def _become(self, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
        for number in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)
        if self._sigchld is not None:
            signal.signal(signal.SIGCHLD, self._sigchld)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        os.execvpe(command[0], list(command), environment)  # noqa: S606  # without a shell, on purpose

    def wait(self) -> int:
        """Forward signals until the command has ended; returns its wait status, as of `os.waitpid`."""
        while True:
            self._reap()
            if self._status is not None:
                return self._status
            self._pass_on(signal.sigwaitinfo(signal.valid_signals()))

    def linger(self, until: Callable[[], bool], seconds: float) -> None:
        """After the command's end: wait until `until()`, at most `seconds`, or until a signal in `_ENDS`."""
        deadline = time.monotonic() + seconds
        while not until() and (left := deadline - time.monotonic()) > 0:
            came = signal.sigtimedwait(signal.valid_signals(), left)
            if came is not None and came.si_signo in _ENDS:
                break
            self._reap()
        self._witness.end()

    def _pass_on(self, came: signal.struct_siginfo) -> None:
        number = came.si_signo
        if (number == signal.SIGCHLD and came.si_code > 0) or came.si_pid == os.getpid():
            return  # by a child's change of state, or by our own write to a broken pipe
        if number in _STOPS:
            self._asked_to_stop.add(number)
        if not self._has_it(number):
            os.kill(self.pid, number)
        if number in _STOPS and self._stopped_by == number:
            self._stop_too(number)

    def _has_it(self, number: int) -> bool:
        """Whether the command has received this signal, too."""
        deadline = time.monotonic() + _WITNESS_SECONDS
        while number not in self._known_to_all:
            self._ask_witness(number)
            if time.monotonic() > deadline:
                break
            time.sleep(0.001)
        with contextlib.suppress(KeyError):
            self._known_to_all.remove(number)
            return True
        return False

    def _ask_witness(self, number: int) -> None:
        """Note which of `number`, just received, and the pending signals were sent to the whole group."""
        self._known_to_all |= self._witness.take() & (signal.sigpending() | {number})

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG | os.WUNTRACED | os.WCONTINUED)
            except ChildProcessError:
                return
            if pid == 0:
                return
            ended = os.WIFEXITED(status) or os.WIFSIGNALED(status)
            if pid != self.pid:
                if ended:
                    self._ended(pid)
            elif ended:
                self._status = status
            elif os.WIFSTOPPED(status):
                self._stopped_by = os.WSTOPSIG(status)
                # Stopped by SIGSTOP or a signal to itself alone: its sender will continue the command, not this process.
                if self._stopped_by in self._asked_to_stop:
                    self._stop_too(self._stopped_by)
            else:
                self._stopped_by = None

    def _stop_too(self, number: int) -> None:
        self._asked_to_stop.discard(number)
        signal.sigtimedwait({number}, 0)
        os.kill(os.getpid(), number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        # Here this process is stopped until SIGCONT.
        signal.pthread_sigmask(signal.SIG_BLOCK, {number})
        self._ask_witness(signal.SIGCONT)
        self._known_to_all &= signal.sigpending()


class _Witness:
    """A process of our group in which every signal stays pending. To be made while all signals are blocked."""

    def __init__(self) -> None:
        self._pid, self._life = self._begin()

    def take(self) -> set[int]:
        """The signals that are pending in it; then replaces it by a new process without pending ones."""
        taken: set[int] = set()
        while _pending(self._pid):
            old, life = self._pid, self._life
            self._pid, self._life = self._begin()
            taken |= _pending(old)  # once more: later signals go to the new one as well
            self._end(old, life)
        return taken

    def end(self) -> None:
        self._end(self._pid, self._life)

    @staticmethod
    def _end(pid: int, life: int) -> None:
        os.close(life)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # it was killed from outside, and reaped
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    @staticmethod
    def _begin() -> tuple[int, int]:
        until, life = os.pipe()
        pid = os.fork()
        if pid == 0:
            # It must keep no descriptor of ours open: the monitor ends when its pipe is closed.
            os.closerange(0, until)
            os.closerange(until + 1, max(life, until) + 1024)
            os.read(until, 1)  # until its parent, which alone has the other end, has ended
            os._exit(0)
        os.close(until)
        return pid, life


def _pending(pid: int) -> set[int]:
    try:
        lines = (
            Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
        )  # names are any bytes
    except OSError:
        return set()
    pending = 0
    for line in lines:
        if line.startswith(("SigPnd:", "ShdPnd:")):
            pending |= int(line.split()[1], 16)
    return {number for number in range(1, 65) if pending >> (number - 1) & 1}


def end_like(status: int) -> int:
    """End this process by the signal that ended the command, or return its exit code; 128 + the signal for process 1."""
    if os.WIFEXITED(status):
        return os.WEXITSTATUS(status)
    number = os.WTERMSIG(status)
    resource.setrlimit(
        resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1])
    )  # no core dump: the command has made its own
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    return 128 + number

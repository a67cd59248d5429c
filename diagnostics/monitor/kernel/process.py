"""Reads a process from /proc: works while the process's loop is stuck or its GIL is held."""

from __future__ import annotations

import os
import re
import resource
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .proc_file import read_whole

__all__ = [
    "Identity",
    "ProcessReading",
    "alive",
    "cpu_seconds",
    "exit_status",
    "identity",
    "lives",
    "loop_run_and_wait",
    "memory_and_state",
    "namespaced_pid",
    "parent_of",
    "proc_is_ours",
    "read_process",
    "runs",
    "shared_bytes",
    "threads_busy",
]

_PROC = Path("/proc")
_PAGE_BYTES = resource.getpagesize()
_SHARED = re.compile(rb"^RssShmem:\s+(\d+) kB$", re.MULTILINE)
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """One reading of /proc/<pid>: bytes, CPU seconds since the start, counts; None where /proc does not show them.

    mapped_bytes   of rss_bytes, pages of mapped files and of shared memory
    shared_bytes   of mapped_bytes, shared memory, files in a tmpfs included; None before Linux 4.5
    state          one letter as in ps: R running, S sleeping, D waiting for a disk, T stopped, Z zombie
    """

    pid: int
    rss_bytes: int
    state: str
    threads: int
    fds: int | None
    cpu_seconds: float
    mapped_bytes: int
    shared_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def _stat(pid: int, proc: Path) -> list[str]:
    """The fields of /proc/<pid>/stat from the third on, the state. Raises OSError."""
    # The name in parentheses may contain spaces, parentheses and any bytes: the fields come after the last parenthesis.
    return read_whole(f"{proc}/{pid}/stat").rpartition(b")")[2].decode(errors="replace").split()


def alive(pid: int) -> bool:
    """Whether a process with this pid exists and is no zombie."""
    try:
        return _stat(pid, _PROC)[0] != "Z"
    except (OSError, IndexError):
        return False


def read_process(pid: int, proc: Path = _PROC) -> ProcessReading | None:
    """Read process `pid`; None if there is none."""
    try:
        fields = _stat(pid, proc)
        rss_pages, mapped_pages = map(int, read_whole(f"{proc}/{pid}/statm").split()[1:3])
    except (OSError, IndexError, ValueError):
        return None
    return ProcessReading(
        pid=pid,
        rss_bytes=rss_pages * _PAGE_BYTES,
        state=fields[0],
        threads=int(fields[17]),
        fds=_descriptors(f"{proc}/{pid}/fd", told=proc == _PROC),
        cpu_seconds=(int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND,
        mapped_bytes=mapped_pages * _PAGE_BYTES,
        shared_bytes=shared_bytes(pid, proc),
    )


def memory_and_state(pid: int, proc: Path = _PROC) -> tuple[int, str] | None:
    """Resident bytes of process `pid` and its state's letter, from one file; None if there is no such process."""
    try:
        fields = _stat(pid, proc)
        return int(fields[21]) * _PAGE_BYTES, fields[0]
    except (OSError, IndexError, ValueError):
        return None


def _descriptors(folder: str, *, told: bool) -> int | None:
    """The number of open descriptors; None of another user's process. `told`: Linux may tell it as the folder's size (6.2)."""
    try:
        listing = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # a size is told also to those who may not list them
    except OSError:
        return None
    try:
        size = os.fstat(listing).st_size if told else 0
        return size or len(os.listdir(listing))  # noqa: PTH208  # counting names needs no Path objects
    except OSError:  # it has ended
        return None
    finally:
        os.close(listing)


def shared_bytes(pid: int, proc: Path = _PROC) -> int | None:
    """Resident shared memory of process `pid`, files in a tmpfs included; None where the kernel does not tell."""
    try:
        line = _SHARED.search(read_whole(f"{proc}/{pid}/status"))
    except OSError:
        return None
    return int(line[1]) * 1024 if line else None


def cpu_seconds(pid: int) -> float | None:
    """CPU seconds of process `pid` to the nanosecond (/proc/<pid>/stat has hundredths of a second); None if it has ended.

    The clock's id is that of clock_getcpuclockid(3): the pid's complement above three bits for the kind of clock, 2 for
    CPUCLOCK_SCHED.
    """
    try:
        return time.clock_gettime(~pid << 3 | 2)
    except OSError:
        process = read_process(pid)
        return process.cpu_seconds if process else None


def loop_run_and_wait(pid: int, proc: Path = _PROC) -> tuple[int, int] | None:
    """Nanoseconds that the main thread has run, and has waited on a run queue; None where the kernel does not count them.

    Source: https://docs.kernel.org/scheduler/sched-stats.html, /proc/<pid>/schedstat.
    """
    try:
        run, wait, _slices = (proc / str(pid) / "schedstat").read_text(encoding="utf-8").split()
        return int(run), int(wait)
    except (OSError, ValueError):
        return None


def threads_busy(pid: int, proc: Path = _PROC) -> dict[int, int]:
    """tid -> nanoseconds that the thread has run or waited on a run queue; empty where the kernel does not count them."""
    busy: dict[int, int] = {}
    try:
        threads = list((proc / str(pid) / "task").iterdir())
    except OSError:  # it has ended
        return busy
    for thread in threads:
        try:
            run, wait, _slices = (thread / "schedstat").read_text(encoding="utf-8").split()
        except (OSError, ValueError):  # this thread has ended, or the kernel does not count
            continue
        busy[int(thread.name)] = int(run) + int(wait)
    return busy


@dataclass(frozen=True, slots=True)
class Identity:
    """Identifies a process uniquely, since its pid may be reused.

    boot_id       the kernel's id of the boot
    start_ticks   clock ticks from the boot to the process's start
    """

    pid: int
    boot_id: str
    start_ticks: int


def identity(pid: int, proc: Path = _PROC) -> tuple[Identity, float] | None:
    """The identity of process `pid`, and its start in seconds since the epoch; None if there is no such process."""
    try:
        fields = _stat(pid, proc)
        boot_id = read_whole(f"{proc}/sys/kernel/random/boot_id").decode().strip()
        booted = next(line for line in read_whole(f"{proc}/stat").splitlines() if line.startswith(b"btime "))
        ticks = int(fields[19])
        return Identity(pid, boot_id, ticks), int(booted.split()[1]) + ticks / _TICKS_PER_SECOND
    except (OSError, IndexError, ValueError, StopIteration):
        return None


def parent_of(pid: int, proc: Path = _PROC) -> Identity | None:
    """The parent of `pid`; None where `pid` has ended, or its parent is process 1, which adopts orphans."""
    try:
        parent = int(_stat(pid, proc)[1])
    except (OSError, IndexError, ValueError):
        return None
    identified = identity(parent, proc) if parent > 1 else None
    return identified[0] if identified else None


def lives(who: Identity) -> bool:
    """Whether this process still runs: it has not ended, is no zombie, and its pid was not reused."""
    try:
        fields = _stat(who.pid, _PROC)
        return fields[0] != "Z" and int(fields[19]) == who.start_ticks
    except (OSError, IndexError, ValueError):
        return False


def runs(pid: int) -> bool:
    """Whether there is a process `pid`, also where /proc hides it (mount option hidepid, proc(5))."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def proc_is_ours() -> bool:
    """Whether /proc is of this process's own PID namespace, so that pids from system calls can be looked up there."""
    try:
        return os.readlink("/proc/self") == str(os.getpid())  # noqa: PTH115  # a number, and no path
    except OSError:
        return False


def namespaced_pid(pid: int, proc: Path = _PROC) -> int | None:
    """The pid of process `pid` in its own PID namespace (NSpid, proc(5)); None where unknown."""
    try:
        lines = (proc / str(pid) / "status").read_text(errors="replace").splitlines()
        return next(int(line.split()[-1]) for line in lines if line.startswith("NSpid:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return None


def exit_status(pid: int, proc: Path = _PROC) -> int | None:
    """The wait status of a zombie (proc(5): stat, field 52); None for any other process."""
    try:
        fields = _stat(pid, proc)
        return int(fields[49]) if fields[0] == "Z" else None
    except (OSError, IndexError, ValueError):
        return None

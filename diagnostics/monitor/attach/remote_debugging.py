"""Makes a Python 3.14 process run a script on its main thread, as `sys.remote_exec` does: by three writes into its memory,
without stopping it.

Not by `sys.remote_exec` itself, because that needs equal versions, and the monitor may run on another Python. The offsets of
the fields are in a table at the beginning of `_PyRuntime`, whose layout is fixed within a minor version.
Sources: https://docs.python.org/3.14/howto/remote_debugging.html, PEP 768; Include/internal/pycore_debug_offsets.h.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ...errors import RefusedError, TargetError, UsageError

__all__ = ["RemoteDebugging", "remote_debugging"]

_COOKIE = b"xdebugpy"
# Indexes of 64-bit entries in that table, by minor version.
_PLACES = {(3, 14): (5, 10, 89)}  # runtime.interpreters.head, interpreter.threads.main, debugger_support
_SUPPORT = struct.Struct("<6Q")
_POINTER = struct.Struct("<Q")
_INT = struct.Struct("<i")
_STOP_BIT = 1 << 5  # _PY_EVAL_PLEASE_STOP_BIT
_PATH_BYTES = 512


@dataclass(frozen=True, slots=True)
class RemoteDebugging:
    """Addresses in one process's memory; `enabled`: whether remote debugging is switched on there."""

    memory: int
    enabled: bool
    breaker: int
    pending: int
    path: int
    path_bytes: int

    def run(self, script: str) -> None:
        """Make the main thread run a file at its next safe point. Raises UsageError for a path that is too long."""
        encoded = os.fsencode(script) + b"\0"
        if len(encoded) > self.path_bytes:
            raise UsageError(f"the path {script} is longer than {self.path_bytes - 1} bytes")
        os.pwrite(self.memory, encoded, self.path)
        os.pwrite(self.memory, _INT.pack(1), self.pending)
        (breaker,) = _POINTER.unpack(os.pread(self.memory, _POINTER.size, self.breaker))
        os.pwrite(self.memory, _POINTER.pack(breaker | _STOP_BIT), self.breaker)

    def give_up(self) -> None:
        """Cancel a script that the main thread has not run yet."""
        os.pwrite(self.memory, _INT.pack(0), self.pending)


@contextmanager
def remote_debugging(pid: int, version: tuple[int, ...], runtime: int) -> Iterator[RemoteDebugging]:
    """The interface of process `pid`, whose `_PyRuntime` is at address `runtime`. Raises RefusedError where its memory may not
    be written, TargetError where the table is not as expected."""
    try:
        memory = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise RefusedError(
            f"the memory of process {pid} may not be written: {error.strerror}",
            remedy="run as the service's user or as root with CAP_SYS_PTRACE; `diagnostics attach --check PID` says more",
        ) from error
    try:
        yield _find(memory, version, runtime)
    finally:
        os.close(memory)


def _find(memory: int, version: tuple[int, ...], runtime: int) -> RemoteDebugging:
    head_at, main_at, support_at = _PLACES[version[0], version[1]]

    def pointer(address: int) -> int:
        data = os.pread(memory, _POINTER.size, address)
        return int(_POINTER.unpack(data)[0]) if len(data) == _POINTER.size else 0

    if os.pread(memory, len(_COOKIE), runtime) != _COOKIE:
        raise TargetError("its table of offsets is not where it should be", remedy="use `diagnostics watch PID`")
    table = os.pread(memory, 8 * (support_at + 6), runtime)
    breaker, support, enabled, pending, path, path_bytes = _SUPPORT.unpack_from(table, 8 * support_at)
    if path_bytes != _PATH_BYTES or not pending < path < path_bytes:
        raise TargetError("its table of offsets is of another layout", remedy="use `diagnostics watch PID`")
    interpreter = pointer(runtime + _POINTER.unpack_from(table, 8 * head_at)[0])
    main = pointer(interpreter + _POINTER.unpack_from(table, 8 * main_at)[0]) if interpreter else 0
    if not main:
        raise TargetError("it has no main thread yet, or none any more", remedy="try again once it serves")
    lets_in = os.pread(memory, _INT.size, interpreter + enabled) == _INT.pack(1)
    return RemoteDebugging(memory, lets_in, main + breaker, main + support + pending, main + support + path, path_bytes)

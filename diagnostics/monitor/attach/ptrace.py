"""Calls one C function in another process, on its main thread, by ptrace(2), as a debugger does.

The thread is stopped for about a millisecond; all other threads run on. It may be stopped at any instruction, so the function
must allocate nothing, and take no lock that the thread may hold for longer than a few instructions. If the thread does hold
that lock, the call is given up after `_CALL_SECONDS`, and the thread goes on where it was.

While the thread is stopped its signals are blocked (its mask is set, and restored), an interrupted system call is restarted
by the kernel, and the red zone, 128 bytes below the stack pointer, is left alone. All registers are restored, those of
floating point and vectors as well.

Only for x86-64. Sources: ptrace(2), the System V ABI for AMD64.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ...errors import RefusedError, TargetError, TargetSilentError

__all__ = ["CAN_CALL", "Stopped", "interrupt", "refused_by_kernel", "stopped"]

CAN_CALL: Final = platform.machine() == "x86_64"

_PEEKUSER, _CONT, _SINGLESTEP, _DETACH = 3, 7, 9, 17
_GETREGSET, _SETREGSET, _SEIZE, _INTERRUPT = 0x4204, 0x4205, 0x4206, 0x4207
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_EVENT_STOP: Final = 128
_WALL: Final = 0x40000000
_GENERAL, _EXTENDED = 1, 0x202  # NT_PRSTATUS, NT_X86_XSTATE
_REGISTERS: Final = [
    "r15",
    "r14",
    "r13",
    "r12",
    "rbp",
    "rbx",
    "r11",
    "r10",
    "r9",
    "r8",
    "rax",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "orig_rax",
    "rip",
    "cs",
    "eflags",
    "rsp",
    "ss",
    "fs_base",
    "gs_base",
    "ds",
    "es",
    "fs",
    "gs",
]
_GENERAL_SIZE: Final = 8 * len(_REGISTERS)
_EXTENDED_SIZE: Final = 16384  # AVX-512 and AMX need 11 KiB
_NO_SYSTEM_CALL: Final = 2**64 - 1  # orig_rax: the kernel has no system call to restart
_DIRECTION_AND_TRAP: Final = 0x400 | 0x100
_RED_ZONE: Final = 128
# The return address, where nothing is mapped: the function's return stops the thread (SIGSEGV).
_RETURN_TO: Final = 0
_SYSCALL: Final = b"\x0f\x05"
_MMAP, _PAGE = 9, 4096

# Stopping takes microseconds; a thread that waits for a disk takes longer.
_STOP_SECONDS: Final = 2.0
_CALL_SECONDS: Final = 1.0
_SPIN_SECONDS: Final = 0.005


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


def _ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.restype = ctypes.c_long
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    ctypes.set_errno(0)
    result: int = libc.ptrace(request, pid, address, data)
    if result == -1 and ctypes.get_errno():
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def refused_by_kernel() -> str | None:
    """Why this process may not trace any other (a seccomp filter, a kernel without ptrace); None where it may."""
    try:
        _ptrace(_PEEKUSER, 0)  # pid 0 does not exist: ESRCH where ptrace is allowed
    except ProcessLookupError:
        return None
    except OSError as error:
        return error.strerror or str(error)
    return None


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[Stopped]:
    """The main thread of process `pid`, stopped within the context; always detached at its end.

    Raises RefusedError where it may not be traced, TargetSilentError where it does not stop, TargetError where it ends.
    """
    try:
        _ptrace(_SEIZE, pid)
    except OSError as error:
        raise RefusedError(
            f"process {pid} may not be traced: {error.strerror}",
            remedy="run as the service's user or as root with CAP_SYS_PTRACE; `diagnostics attach --check PID` says more",
        ) from error
    _ptrace(_INTERRUPT, pid)
    thread = Stopped(pid)
    thread.await_stop()
    mask = (ctypes.c_uint64 * 1)()
    _ptrace(_GETSIGMASK, pid, 8, ctypes.addressof(mask))
    thread.set_mask(~_bits(signal.SIGSEGV, signal.SIGTRAP) & (2**64 - 1))
    general, extended = thread.registers(_GENERAL), thread.registers(_EXTENDED)
    try:
        yield thread
    finally:
        thread.stop_again()
        thread.set_registers(_GENERAL, general)
        thread.set_registers(_EXTENDED, extended)
        thread.set_mask(mask[0])
        _ptrace(_DETACH, pid)


def interrupt(pid: int) -> None:
    """Stop the main thread of process `pid` and resume it at once: `epoll_wait` and its like then return early (signal(7)),
    and Python runs its pending calls before it waits again. Raises as `stopped` does."""
    try:
        _ptrace(_SEIZE, pid)
    except OSError as error:
        raise RefusedError(f"process {pid} may not be traced: {error.strerror}") from error
    _ptrace(_INTERRUPT, pid)
    Stopped(pid).await_stop()
    _ptrace(_DETACH, pid)


class Stopped:
    """A thread that is stopped under ptrace."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._running = True

    def await_stop(self, patience: float = _STOP_SECONDS) -> int:
        """Wait until the thread is stopped; returns the signal that stopped it, 0 for PTRACE_INTERRUPT."""
        began = time.monotonic()
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG | _WALL)
            if pid:
                if not os.WIFSTOPPED(status):
                    raise TargetError(f"process {self._pid} has ended", remedy="attach to the one that took its place")
                if status >> 16 == _EVENT_STOP:
                    self._running = False
                    return 0
                number = os.WSTOPSIG(status)
                if number in (signal.SIGSEGV, signal.SIGTRAP):
                    self._running = False
                    return number
                _ptrace(_CONT, self._pid, 0, number)  # the service's own, from before its mask was set
                continue
            waited = time.monotonic() - began
            if waited > patience:
                raise TargetSilentError(
                    f"the main thread of process {self._pid} does not stop",
                    remedy="it waits in the kernel, for a disk or a file system; try again, or read it by `diagnostics watch`",
                )
            time.sleep(0 if waited < _SPIN_SECONDS else 0.0005)

    def stop_again(self) -> None:
        """Stop the thread if it runs, as in a call that has not returned."""
        if self._running:
            _ptrace(_INTERRUPT, self._pid)
            self.await_stop()

    def call(self, function: int, first: int, second: int) -> int:
        """Call `int function(first, second)` in the thread. Raises TargetSilentError where it does not return in time."""
        registers = self._general()
        stack = ((registers["rsp"] - _RED_ZONE) & ~0xF) - 8
        self.write(stack, struct.pack("<Q", _RETURN_TO))
        registers |= {
            "rip": function, "rdi": first, "rsi": second, "rsp": stack, "rax": 0, "orig_rax": _NO_SYSTEM_CALL,
            "eflags": registers["eflags"] & ~_DIRECTION_AND_TRAP,
        }  # fmt: skip
        after = self._run(registers, _CONT, _CALL_SECONDS)
        if after["rip"] != _RETURN_TO:
            raise TargetError(f"the call ended at {after['rip']:#x}; process {self._pid} goes on as it was")
        return int(struct.unpack("<i", struct.pack("<Q", after["rax"])[:4])[0])

    def map_page(self, system_call: int) -> int:
        """Map a page in the process and return its address. `system_call`: address of a `syscall` instruction there."""
        wanted = {"rax": _MMAP, "rdi": 0, "rsi": _PAGE, "rdx": 3, "r10": 0x22, "r8": 2**64 - 1, "r9": 0}
        after = self._run(
            self._general() | wanted | {"rip": system_call, "orig_rax": _NO_SYSTEM_CALL}, _SINGLESTEP, _CALL_SECONDS
        )
        if after["rax"] > 2**64 - 4096:
            raise TargetError(f"process {self._pid} gets no memory: {os.strerror(2**64 - after['rax'])}")
        return after["rax"]

    def system_call_instruction(self) -> int:
        """The address of a `syscall` instruction in the process's vDSO (vdso(7))."""
        for line in Path(f"/proc/{self._pid}/maps").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.endswith("[vdso]"):
                start, end = (int(word, 16) for word in line.split()[0].split("-"))
                offset = self.read(start, end - start).find(_SYSCALL)
                if offset >= 0:
                    return start + offset
        raise TargetError(f"process {self._pid} has no vdso to borrow a system call from", remedy="`diagnostics watch`")

    def read(self, address: int, length: int) -> bytes:
        with open(f"/proc/{self._pid}/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), length, address)

    def write(self, address: int, data: bytes) -> None:
        with open(f"/proc/{self._pid}/mem", "r+b", buffering=0) as memory:
            os.pwrite(memory.fileno(), data, address)

    def set_mask(self, mask: int) -> None:
        held = (ctypes.c_uint64 * 1)(mask)
        _ptrace(_SETSIGMASK, self._pid, 8, ctypes.addressof(held))

    def registers(self, kind: int) -> bytes:
        room = ctypes.create_string_buffer(_GENERAL_SIZE if kind == _GENERAL else _EXTENDED_SIZE)
        vector = _Vector(ctypes.addressof(room), len(room))
        _ptrace(_GETREGSET, self._pid, kind, ctypes.addressof(vector))
        return room.raw[: vector.length]

    def set_registers(self, kind: int, held: bytes) -> None:
        room = ctypes.create_string_buffer(held, len(held))
        vector = _Vector(ctypes.addressof(room), len(held))
        _ptrace(_SETREGSET, self._pid, kind, ctypes.addressof(vector))

    def _general(self) -> dict[str, int]:
        return dict(zip(_REGISTERS, struct.unpack(f"<{len(_REGISTERS)}Q", self.registers(_GENERAL)), strict=True))

    def _run(self, registers: dict[str, int], how: int, patience: float) -> dict[str, int]:
        self.set_registers(_GENERAL, struct.pack(f"<{len(_REGISTERS)}Q", *(registers[name] for name in _REGISTERS)))
        _ptrace(how, self._pid)
        self._running = True
        self.await_stop(patience)
        return self._general()


def _bits(*numbers: int) -> int:
    return sum(1 << (number - 1) for number in numbers)

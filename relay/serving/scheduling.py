"""Asks Linux for short time slices, so that the event loop's thread gets the core sooner when events come.

A relay waits for events for half of its time, and works for a fraction of a millisecond when some come. If another thread or
process has the core then (the monitor, the exporters, a neighbour in the same cgroup), Linux lets that one run to the end of
its slice, one to three milliseconds, since it has had less of the core lately. From 6.12 on a thread may ask for slices of its
own length: a thread with short slices gets no more of the core, but gets it sooner. Older kernels ignore it.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import platform
import struct
from typing import Final

__all__ = ["SLICE_NS", "ask_for_short_slices"]

log = logging.getLogger("relay.scheduling")

# The shortest slice that Linux grants, in nanoseconds.
SLICE_NS: Final = 100_000

# The numbers of the system call: the C library has no function for it before glibc 2.41.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
# struct sched_attr of sched_setattr(2): size, policy, flags, nice, priority, runtime (here the slice), deadline, period
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
# Threads and processes that this thread starts later have ordinary slices, so that they do not compete with it.
_RESET_ON_FORK: Final = 0x01


def ask_for_short_slices() -> bool:
    """Ask for slices of SLICE_NS for the calling thread. Returns whether the kernel accepted. Policy and nice value stay."""
    number = _SCHED_SETATTR.get(platform.machine())
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    attributes = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, _RESET_ON_FORK, nice, 0, SLICE_NS, 0, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(number, 0, attributes, 0):
        log.debug("the kernel grants no short slices: %s", errno.errorcode.get(ctypes.get_errno(), "?"))
        return False
    return True

"""How soon the thread that serves gets its core back from whoever else wants it.

A relay waits for events for half of its time, and works for a fraction of a millisecond when some come. If another thread or
process has the core then (the monitor, the exporters, a neighbour in the same cgroup), Linux lets that one go on to the end of
its slice, one to three milliseconds, since it has had less of the core lately. From 6.12 on a thread may ask for slices of its
own length: one with short slices does not get more of the core, it gets it sooner. Older kernels take no notice.
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

# The least that Linux grants.
SLICE_NS: Final = 100_000

# The C library has no function for it before glibc 2.41.
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274}
# struct sched_attr of sched_setattr(2): size, policy, flags, nice, priority, runtime (here the slice), deadline, period
_ATTRIBUTES: Final = struct.Struct("=IIQiIQQQ")
# Threads and processes that are started later have slices as usual: the one that serves is to come before them.
_RESET_ON_FORK: Final = 0x01


def ask_for_short_slices() -> bool:
    """Give the calling thread slices of SLICE_NS; whether the kernel took that. Its policy and its nice value stay."""
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

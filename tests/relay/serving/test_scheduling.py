"""Short time slices of the serving thread, as the kernel reports them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

import pytest

from relay.serving.scheduling import SLICE_NS, ask_for_short_slices

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}
ATTRIBUTES = struct.Struct("=IIQiIQQQ")
KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])


def policy_nice_and_slice() -> tuple[int, int, int]:
    """Of the calling thread."""
    buffer = ctypes.create_string_buffer(ATTRIBUTES.size)
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.syscall(SCHED_GETATTR[platform.machine()], 0, buffer, ATTRIBUTES.size, 0) == 0, ctypes.get_errno()
    _, policy, _, nice, _, runtime, *_ = ATTRIBUTES.unpack(buffer.raw)
    return policy, nice, runtime


@pytest.mark.skipif(
    platform.machine() not in SCHED_GETATTR, reason="no number of sched_getattr is known for this machine"
)
@pytest.mark.skipif(KERNEL < (6, 12), reason="this kernel has slices of one length")
def test_the_thread_that_asks_has_short_slices_and_what_it_starts_has_not() -> None:
    seen: dict[str, tuple[int, int, int]] = {}

    def serving() -> None:
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + 1)
        seen["before"] = policy_nice_and_slice()
        assert ask_for_short_slices()
        seen["after"] = policy_nice_and_slice()
        started = threading.Thread(target=lambda: seen.update(started=policy_nice_and_slice()))
        started.start()
        started.join()

    asking = threading.Thread(target=serving)  # not in the thread of the tests: it would stay
    asking.start()
    asking.join()
    policy, nice, usual = seen["before"]
    assert seen["after"] == (policy, nice, SLICE_NS)
    assert seen["started"] == (policy, nice, usual) != seen["after"]


def test_a_thread_of_another_policy_is_left_alone() -> None:
    asked: list[bool] = []
    policies: list[int] = []

    def batch() -> None:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        asked.append(ask_for_short_slices())
        policies.append(os.sched_getscheduler(0))

    asking = threading.Thread(target=batch)
    asking.start()
    asking.join()
    assert asked == [False]
    assert policies == [os.SCHED_BATCH]


def test_a_kernel_that_refuses_is_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox: by a number that no system call has."""
    monkeypatch.setattr("relay.serving.scheduling._SCHED_SETATTR", {platform.machine(): 9_999})
    assert not ask_for_short_slices()

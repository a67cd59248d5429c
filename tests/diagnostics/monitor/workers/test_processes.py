"""Which processes are the service's."""

from __future__ import annotations

import subprocess
import sys

from diagnostics.monitor.kernel.family import Family
from diagnostics.monitor.workers.processes import members

SERVICE = """
import socket, subprocess, sys, time
from pathlib import Path
from diagnostics.agent.forked import fork_reading

ours, theirs = socket.socketpair()
reading = fork_reading(lambda: time.sleep(300) or {}, theirs, seconds=300)
while Path(f"/proc/{reading.pid}/comm").read_text() != "hw-reading\\n":
    time.sleep(0.01)
child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print(reading.pid, child.pid, flush=True)
input()
child.kill()
reading.poll(float("inf"))
"""


def test_a_forked_reading_is_no_child_of_the_service() -> None:
    """On a busy machine it lives for a minute, grows, and was accused: "memory grows in child processes"."""
    service = subprocess.Popen(
        [sys.executable, "-c", SERVICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    )
    try:
        assert service.stdout is not None
        reading, child = map(int, service.stdout.readline().split())
        family = Family()
        assert set(family.of(service.pid)) == {service.pid, reading, child}
        found = members([service.pid], {service.pid: "0"}, [], family)
        assert {each.pid: each.role for each in found} == {service.pid: "worker", child: "child"}
    finally:
        service.communicate("\n", timeout=60)
    assert service.returncode == 0

"""Which processes are the service's."""

from __future__ import annotations

import asyncio
import subprocess
import sys

from diagnostics.monitor.kernel.family import Family
from diagnostics.monitor.kernel.rollup import Rollups, read_rollup
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


FORKING = """
import os, socket, time
from pathlib import Path
from diagnostics.agent.forked import fork_reading

kept = bytearray(os.urandom(1_000_000)) * 30
input()
ours, theirs = socket.socketpair()
reading = fork_reading(lambda: time.sleep(300) or {}, theirs, seconds=300)
while Path(f"/proc/{reading.pid}/comm").read_text() != "hw-reading\\n":
    time.sleep(0.01)
print(reading.pid, flush=True)
input()
reading.poll(float("inf"))
print("alone", flush=True)
input()
"""


def test_pages_that_only_a_forked_reading_shares_stay_the_services_own() -> None:
    """They turned private again when the reading had ended, which was told as copy-on-write, with high confidence."""
    service = subprocess.Popen(
        [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8", bufsize=1
    )
    assert service.stdin is not None
    assert service.stdout is not None
    rollups = Rollups(least=0.0)

    def own() -> int:
        read, _ = asyncio.run(rollups.read([service.pid]))
        rollup = read[service.pid]
        assert rollup is not None
        return rollup.private

    try:
        while (rollup := read_rollup(service.pid)) is None or rollup.private < 30_000_000:
            assert service.poll() is None
        alone = own()
        service.stdin.write("\n")
        service.stdout.readline()
        shared = read_rollup(service.pid)
        assert shared is not None
        assert shared.private < 20_000_000
        assert own() == alone
        service.stdin.write("\n")
        assert service.stdout.readline() == "alone\n"
        assert own() > 30_000_000
    finally:
        service.communicate("\n", timeout=60)
    assert service.returncode == 0

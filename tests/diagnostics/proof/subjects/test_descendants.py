"""A process's children are found while its threads come and go."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from diagnostics.proof.subjects.processes import descendants

BUSY = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
print(child.pid, flush=True)
while True:
    for thread in [threading.Thread(target=int) for _ in range(20)]:
        thread.start()
"""
LOOKS = 300


def test_threads_that_end_hide_no_children() -> None:
    with subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE) as busy:
        assert busy.stdout
        child = int(busy.stdout.readline())
        found = [child in descendants(busy.pid) for _ in range(LOOKS)]
        busy.kill()
        os.kill(child, signal.SIGKILL)
    assert found == [True] * LOOKS

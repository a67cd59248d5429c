"""A process has a name of any bytes: it is read like any other."""

from __future__ import annotations

import subprocess
import sys

from diagnostics.monitor.kernel.family import Family
from diagnostics.monitor.kernel.process import alive, read_process
from diagnostics.proof.subjects.processes import descendants

NAMED = """
import subprocess, sys
open("/proc/self/comm", "wb").write(b"\\xff) d\\xc3\\xa4mon")
with subprocess.Popen([sys.executable, "-c", "input()"]):
    print("named", flush=True)
"""


def test_a_process_whose_name_is_no_text_is_read_and_its_children_are_found() -> None:
    command = [sys.executable, "-c", NAMED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "named\n"
        found = read_process(process.pid)
        assert found is not None
        assert found.rss_bytes > 0
        assert alive(process.pid)
        assert len(descendants(process.pid)) == 1
        assert len(Family().of(process.pid)) == 2
        process.communicate()

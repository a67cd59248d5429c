"""memray's window where memray cannot begin: the right reason is told, and nothing of it stays on."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

# A thread's stack is as large as RLIMIT_STACK says, and the address space has no room for one: that no thread can be started
# is so for root, too, whom RLIMIT_NPROC does not bind.
TRY = """
import json, resource, sys, threading
from pathlib import Path
import memray
from diagnostics.agent.readings.allocation import memray as reading
from diagnostics.errors import DiagnosticsError

folder, checks = Path(sys.argv[1]), sys.argv[2] == "checks"
if not checks:
    reading._must_start_threads = lambda: None
pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
unlimited = resource.getrlimit(resource.RLIMIT_AS)

def attempt(name):
    try:
        window = reading.Window(str(folder / name), aggregated=True, python_allocators=True, native=False)
    except DiagnosticsError as error:
        return error.code
    window.close()
    return "opened"

def left():
    return [name for name in ("_name", "_ident") if name in vars(threading.Thread)] + [str(threading._profile_hook)]

resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**28, unlimited[1]))
told = [attempt("1"), attempt("2"), left()]
resource.setrlimit(resource.RLIMIT_AS, unlimited)
told += [attempt("3"), left()]
with memray.Tracker(folder / "theirs"):
    told.append(attempt("4"))
    try:
        memray.Tracker(folder / "5").__enter__()
    except RuntimeError:
        told.append("theirs is still active")
print(json.dumps(told))
"""


def _small_stacks_for_none() -> None:
    hard = resource.getrlimit(resource.RLIMIT_STACK)[1]
    resource.setrlimit(resource.RLIMIT_STACK, (2**29, hard))


@pytest.mark.skipif(
    resource.getrlimit(resource.RLIMIT_STACK)[1] not in (-1, resource.RLIM_INFINITY),
    reason="stacks have a hard limit here",
)
@pytest.mark.parametrize(("checks", "code"), [("checks", "no_thread"), ("checks not", "memray_failed")])
def test_without_a_thread_for_it_memray_is_not_left_on(tmp_path: Path, checks: str, code: str) -> None:
    done: Any = subprocess.run(
        [sys.executable, "-c", TRY, str(tmp_path), checks],
        check=False, capture_output=True, encoding="utf-8", timeout=120, preexec_fn=_small_stacks_for_none,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [
        code, code, ["None"], "opened", ["None"], "tracker_active", "theirs is still active"
    ]  # fmt: skip

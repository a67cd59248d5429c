"""A monitor that may use little memory gives up pages first: never itself, and no capture."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from diagnostics.monitor.captures.reader import render

APP = """
async def app(scope, receive, send):
    pass
"""
# A child that takes more than its cgroup has, run as a monitor runs its readers.
EATING = """
import asyncio, sys
from pathlib import Path
from diagnostics.monitor.captures.reader import render
eater = "import sys; kept = [bytearray(1 << 20) for _ in range(1000)]"
print(asyncio.run(render(Path(sys.argv[1]), "-c", eater, needs_bytes=0)))
"""


def test_a_page_is_given_up_and_named_where_its_process_was_killed(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("half of it", encoding="utf-8")
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    why = asyncio.run(render(page, "-c", kill, needs_bytes=0))
    assert why is not None
    assert why.startswith("page.html: rendering was ended by SIGKILL")
    assert not page.exists()


def test_a_page_for_which_there_is_no_room_is_not_begun(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    begin = f"open({str(page)!r}, 'w').close()"
    why = asyncio.run(render(page, "-c", begin, needs_bytes=2**60))
    assert why is not None
    assert "this monitor may use" in why
    assert not page.exists()
    assert asyncio.run(render(page, "-c", begin, needs_bytes=0)) is None
    assert page.exists()


def test_the_kernel_kills_the_reader_and_not_the_monitor_beside_it(
    memory_cgroup: Any, launch: Any, tmp_path: Path
) -> None:
    limited = memory_cgroup(64 * 2**20)
    script = tmp_path / "eating.py"
    script.write_text(EATING, encoding="utf-8")
    into = f"echo $$ > {limited}/cgroup.procs; exec {sys.executable} {script} {tmp_path}/page.html"
    monitor = launch("sh", "-c", into)
    assert monitor.process.wait(60) == 0
    assert "page.html: rendering was ended by SIGKILL" in monitor.output


def test_a_capture_is_taken_without_the_pages_that_do_not_fit(
    memory_cgroup: Any, observed: Any, http: Any, eventually: Any
) -> None:
    limited = memory_cgroup(64 * 2**20)
    service = observed(APP)
    eventually(lambda: http(f"{service.monitor}/debug/memory").json()["workers"][0]["state"] == "answering")
    (limited / "cgroup.procs").write_text(str(monitor_of(service)), encoding="utf-8")
    begun = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": "memray", "seconds": 0.5, "force": True})
    assert begun.status == 202, begun.body
    url = service.monitor + begun.headers["Location"]
    ended = eventually(lambda: (now := http(url).json())["state"] in ("done", "failed") and now)
    assert ended["state"] == "done", json.dumps(ended)
    assert any("flamegraph.html: making it takes 96 MiB" in each for each in ended["result"]["not_covered"])
    artifacts = {each["name"] for each in ended["artifacts"]}
    assert {"capture.bin", "profile.json", "flame.html"} <= artifacts
    assert "flamegraph.html" not in artifacts


def monitor_of(service: Any) -> int:
    """The pid of the monitor beside a service: the one that listens where its page is."""
    port = int(service.monitor.rpartition(":")[2])
    rows = (line.split() for line in Path("/proc/net/tcp").read_text(encoding="utf-8").splitlines()[1:])
    (inode,) = {row[9] for row in rows if row[3] == "0A" and row[1].endswith(f":{port:04X}")}
    parent = service.supervisor.process.pid
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="utf-8").split():
        with contextlib.suppress(FileNotFoundError):  # a descriptor that was closed meanwhile
            if f"socket:[{inode}]" in [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]:
                return int(pid)
    raise AssertionError(f"no child of {parent} listens on port {port}")

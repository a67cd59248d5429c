"""What another user's process does not let us read is unknown with the reason, and never zero."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.monitor.kernel.process import read_process
from diagnostics.monitor.kernel.rollup import read_rollup
from diagnostics.monitor.kernel.sockets import Sockets
from diagnostics.monitor.workers.balance import read_balance
from diagnostics.monitor.workers.connections import connections_of
from diagnostics.monitor.workers.hidden import without_hidden

NOBODY = 65534


def as_nobody(read: Callable[[int], Any]) -> Any:
    """What `read` says of a process that another user may not look into, as that user. Only root can become another one."""
    if os.geteuid() != 0:
        pytest.skip("this user cannot become another one")
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.setresuid(NOBODY, NOBODY, NOBODY)
                os.write(writer, json.dumps(read(process.pid)).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        with open(reader, "rb") as answer:
            text = answer.read()
        os.waitpid(child, 0)
        assert process.stdin
        process.stdin.close()
        process.wait(20)
    return json.loads(text)


def test_where_smaps_are_not_to_be_read_the_kernels_parts_are_unknown_with_the_reason() -> None:
    told = as_nobody(lambda pid: read_balance(pid, 5_000_000, None))
    for name in ("mapped_files", "stacks", "python_live", "malloc_free"):
        assert told["parts"][name] is None
    assert told["pss_bytes"] is told["private_bytes"] is None
    for name in ("mapped_files", "stacks", "pss", "private"):
        assert f"uid {NOBODY}" in told["unknown"][name]
        assert "of uid 0" in told["unknown"][name]
    assert "no agent" in told["unknown"]["python_live"]


def test_connections_that_cannot_be_seen_are_not_none() -> None:
    server = {"source": "server", "open": 1, "routes": {"/a": {"open": 1, "kernel_bytes": 0}}, "top": []}

    def read(pid: int) -> list[Any]:
        sockets = Sockets()
        bare = connections_of(pid, None, sockets)
        return [without_hidden(bare, pid, sockets), without_hidden(server, pid, sockets)]

    bare, told = as_nobody(read)
    assert bare["open"] is bare["ports"] is None
    assert told["open"] == 1
    assert told["routes"]["/a"]["kernel_bytes"] is None
    for each in (bare, told):
        assert "CAP_SYS_PTRACE" in each["unknown"][-1]
    assert without_hidden(server, os.getpid(), Sockets()) is server
    process = as_nobody(lambda pid: read_process(pid).to_json())  # type: ignore[union-attr]
    assert process["fds"] is None
    assert process["rss_bytes"] > 0


def test_private_memory_that_cannot_be_read_is_unknown() -> None:
    assert as_nobody(lambda pid: read_rollup(pid)) is None
    own = read_rollup(os.getpid())
    assert own is not None
    assert 0 < own.private <= own.rss
    assert own.private <= own.pss <= own.rss
    assert own.shared == own.rss - own.private


def test_of_an_old_kernel_that_has_no_rollup_nothing_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "7"
    folder.mkdir()
    assert read_rollup(7, tmp_path) is None
    (folder / "smaps_rollup").write_text("Rss: 100 kB\n", encoding="utf-8")
    assert read_rollup(7, tmp_path) is None

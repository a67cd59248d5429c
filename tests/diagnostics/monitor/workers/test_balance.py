"""The balance of live services, as the monitor tells it: whole, or as much of it as the service's state allows."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.balance import PARTS
from diagnostics.monitor.workers.balance import BalanceReader, read_balance

SERVICE = (Path(__file__).parent / "planted.py").read_text(encoding="utf-8")
INSIDE = {"python_live", "python_free", "malloc_live", "malloc_free", "tracers"}

Worker = dict[str, Any]


def unknown(worker: Worker) -> set[str]:
    parts = worker["balance"]["parts"]
    assert sum(filter(None, parts.values())) == worker["balance"]["rss_bytes"]
    return {name for name, held in parts.items() if held is None}


@pytest.fixture
def worker_with(http: Any, eventually: Any) -> Callable[..., Worker]:
    """The service's one worker once `holds` is true of it."""

    def find(service: Any, holds: Callable[[Worker], object]) -> Worker:
        def look() -> Worker | None:
            workers = http(f"{service.monitor}/debug/memory").json()["workers"]
            return workers[0] if workers and holds(workers[0]) else None

        found: Worker = eventually(look)
        return found

    return find


def test_the_balance_is_on_its_route_in_the_overview_and_in_the_metrics(
    observed: Any, http: Any, worker_with: Callable[..., Worker]
) -> None:
    service = observed(SERVICE)
    overview = worker_with(service, lambda worker: worker["balance"]["agent"])
    assert tuple(overview["balance"]["parts"]) == PARTS
    assert unknown(overview) == set()
    assert overview["balance"]["rss_bytes"] == pytest.approx(overview["memory"]["rss_bytes"], rel=0.1)
    (worker,) = http(f"{service.monitor}/debug/memory/balance?worker=0").json()["workers"]
    assert (worker["pid"], worker["state"]) == (overview["pid"], "answering")
    balance = worker["balance"]
    assert set(balance["beside"]) == {"stream_sockets", "page_cache", "sockets", "kernel", "children"}
    assert balance["beside"]["children"] == 0
    assert balance["of_which"]["shared_memory"] == 0
    assert balance["cost_seconds"] > 0
    missing = http(f"{service.monitor}/debug/memory/balance?worker=9")
    assert (missing.status, missing.json()["error"]["code"]) == (404, "not_found")
    text = http(f"{service.monitor}/metrics").body.decode()
    told = dict(re.findall(r'^memory_balance_bytes\{part="(\w+)",worker="0"\} (\S+)$', text, re.MULTILINE))
    assert set(told) == set(PARTS)
    assert ("\nmemory_limit_bytes{" in text) == bool(balance["cgroup"] and balance["cgroup"]["limit_bytes"])


def test_of_a_stopped_service_the_kernels_parts_are_still_read(
    observed: Any, http: Any, worker_with: Callable[..., Worker]
) -> None:
    service = observed(SERVICE)
    pid = worker_with(service, lambda worker: worker["balance"]["agent"])["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        silent = worker_with(service, lambda worker: worker["state"] == "silent")
    finally:
        os.kill(pid, signal.SIGCONT)
    assert unknown(silent) == INSIDE
    assert silent["balance"]["parts"]["mapped_files"] > 1_000_000
    text = http(f"{service.monitor}/metrics").body.decode()
    assert 'part="other"' in text


def test_without_pymalloc_its_parts_are_unknown_and_malloc_has_the_objects(
    observed: Any, http: Any, worker_with: Callable[..., Worker]
) -> None:
    service = observed(SERVICE, env={"PYTHONMALLOC": "malloc"})
    before = worker_with(service, lambda worker: worker["balance"]["agent"])
    assert unknown(before) == {"python_live", "python_free"}
    assert before["memory"]["in_use_bytes"] == before["memory"]["malloc_live_bytes"]
    http(f"{service.url}/plant/python_live")
    live = before["balance"]["parts"]["malloc_live"] + 50_000_000
    worker_with(service, lambda worker: worker["balance"]["parts"]["malloc_live"] > live)


def test_while_memray_watches_its_tables_are_unknown_and_in_use_is_not_malloc_alone(
    observed: Any, http: Any, worker_with: Callable[..., Worker]
) -> None:
    service = observed(SERVICE)
    worker_with(service, lambda worker: worker["balance"]["agent"])
    begun = http(f"{service.monitor}/debug/memory/captures", "POST", {"kind": "memray", "seconds": 60, "force": True})
    assert begun.status == 202
    during = worker_with(
        service, lambda worker: worker["window"] == "memray" and worker["balance"]["parts"]["tracers"] is None
    )
    assert unknown(during) == {"python_live", "python_free", "tracers"}
    assert during["memory"]["in_use_bytes"] is None
    assert http(service.monitor + begun.headers["Location"], "DELETE").status == 204
    after = worker_with(service, lambda worker: worker["window"] is None and not unknown(worker))
    assert after["memory"]["in_use_bytes"] > 0


def test_what_streams_hold_is_told_by_layer() -> None:
    reading = {"ledger": {"buffered_bytes": 5}}
    rows = ({"transport_bytes": 7, "kernel_bytes": None}, {"transport_bytes": 11, "kernel_bytes": 13})
    told = read_balance(os.getpid(), 0, reading, {"routes": dict(zip("ab", rows, strict=True))})
    assert (told["of_which"]["app"], told["of_which"]["transport"]) == (5, 18)
    assert told["beside"]["stream_sockets"] == 13
    silent = read_balance(os.getpid(), 0, None)
    assert silent["of_which"]["transport"] is silent["beside"]["stream_sockets"] is None


def test_children_are_told_beside_the_balance(launch: Any) -> None:
    program = "import subprocess, sys; print('up', flush=True); subprocess.run([sys.executable, '-c', 'input()'])"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        try:
            deadline = time.monotonic() + 60
            told = read_balance(process.pid, 0, None)
            # A child is there before it is Python: its first pages are few.
            while (told["beside"]["children"] or 0) <= 1_000_000 and time.monotonic() < deadline:
                time.sleep(0.05)
                told = read_balance(process.pid, 0, None)
        finally:
            process.stdin.close()
            process.wait(60)
    assert told["beside"]["children"] > 1_000_000
    assert told["parts"]["python_live"] is None


def test_without_proc_rss_is_all_that_is_known(tmp_path: Path) -> None:
    told = read_balance(1, 1000, None, proc=tmp_path)
    assert {name: held for name, held in told["parts"].items() if held is not None} == {"other": 1000}
    assert told["cgroup"] is None


def test_a_kernel_that_does_not_answer_keeps_nobody_waiting_and_is_asked_once(tmp_path: Path) -> None:
    """smaps is a pipe that nobody writes to: whoever opens it waits, as behind a memory map that is held."""
    folder = tmp_path / str(os.getpid())
    folder.mkdir()
    shutil.copyfile("/proc/self/smaps", folder / "smaps")

    async def read() -> tuple[Any, Any, Any]:
        reader = BalanceReader(os.getpid(), tmp_path, patience=0.05)
        whole = await BalanceReader(os.getpid(), tmp_path, patience=20).read(1, None)
        (folder / "smaps").unlink()
        os.mkfifo(folder / "smaps")
        first = await reader.read(1, None)
        reading = reader._reading
        second = await reader.read(1, None)
        assert reader._reading is reading
        assert reading is not None
        (folder / "smaps").write_bytes(b"")  # the kernel answers after all, with nothing
        await reading
        return whole, first, second

    whole, first, second = asyncio.run(read())
    assert whole["rss_bytes"] > 1_000_000
    assert first is second is None


def test_a_balance_is_shared_for_fifty_times_its_cost() -> None:
    async def read() -> tuple[Any, Any, Any]:
        reader = BalanceReader(os.getpid())
        first = await reader.read(1, None)
        reader._valid_until += 60
        second = await reader.read(1, None)
        third = await reader.read(1, {"allocators": {}})  # the agent answers again: what is shared does not know
        return first, second, third

    first, second, third = asyncio.run(read())
    assert first is second
    assert third is not first
    assert (first["agent"], third["agent"]) == (False, True)

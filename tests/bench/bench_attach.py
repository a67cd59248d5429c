"""What attaching costs a loaded service, and whether it survives it: stalls, crashes, memory, many workers at once.

    python tests/bench/bench_attach.py stall   [--python PYTHON] [--times 50]
    python tests/bench/bench_attach.py cycles  [--python PYTHON] [--times 500]
    python tests/bench/bench_attach.py memory  [--python PYTHON] [--times 100]
    python tests/bench/bench_attach.py workers [--times 8]

PYTHON runs the service, and needs nothing installed but uvicorn (`--plain`: asyncio's own server, nothing at all); `--root`
runs it in another root, by chroot. 20 streams are open to it. Each command prints the machine's load average, and ends with 1
if the service has ended.

stall    a task of the service's event loop sleeps 1 ms at a time and keeps the longest gap; beside each attach the same time is
         measured without one, since what the machine does meanwhile is in both. "Without waits for a core" is the longest gap
         less the longest time in it for which one of the service's threads could run and had no core
         (/proc/PID/task/*/schedstat): the loop's thread, or one that holds the GIL
cycles   attach, read as a monitor does, and detach, `--times` times
memory   RssAnon after each attach, reading, detach and a full collection of the service's; some readings without an attach
         come first. The slope is that of the later half, from means of five neighbours, with its 95 % interval
workers  `diagnostics attach --all-workers` on one uvicorn with `--times` workers: from the command's start to the last line
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Self

from diagnostics.commands._attaching import workers_of
from diagnostics.errors import NotFoundError
from diagnostics.monitor.attach.attach import attach, detach
from diagnostics.monitor.attach.folder import AgentFolder
from diagnostics.monitor.workers.conversation import ask

# An ASGI app for uvicorn, and the same behind asyncio's own server.
APP = """
import asyncio, gc, json, os, sys, time
longest = (0.0, 0.0)
def coreless():
    waited = {}
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/schedstat") as file:
                waited[thread] = int(file.read().split()[1]) / 1e9
        except OSError:
            pass
    return waited
async def watch():
    global longest
    last, before = time.monotonic(), coreless()
    while True:
        await asyncio.sleep(0.001)
        now, after = time.monotonic(), coreless()
        gap = now - last - 0.001
        without_core = max(waited - before.get(thread, 0.0) for thread, waited in after.items())
        longest = max(longest[0], gap), max(longest[1], gap - without_core)
        last, before = now, after
def told(collected=False):
    global longest
    if collected:
        gc.collect()
    gap, longest = longest, (0.0, 0.0)
    status = dict(line.split(":", 1) for line in open("/proc/self/status") if ":" in line)
    return json.dumps({"gap": gap, "anonymous": int(status["RssAnon"].split()[0]) * 1024, "pid": os.getpid(),
                       "blocks": sys.getallocatedblocks(), "threads": int(status["Threads"])}).encode()
watching = None
async def app(scope, receive, send):
    global watching
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                watching = asyncio.ensure_future(watch())
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] in ("/told", "/collected"):
        await send({"type": "http.response.body", "body": told(scope["path"] == "/collected")})
        return
    for number in range(10**9):
        kept = [str(each) for each in range(50)]
        await send({"type": "http.response.body", "body": b"data: %d\\n\\n" % number, "more_body": True})
        await asyncio.sleep(0.01)
async def talk(reader, writer):
    path = (await reader.readline()).split()[1]
    while (await reader.readline()).strip():
        pass
    try:
        if path in (b"/told", b"/collected"):
            body = told(path == b"/collected")
            writer.write(b"HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(body), body))
        else:
            writer.write(b"HTTP/1.1 200 OK\\r\\n\\r\\n")
            while True:
                kept = [str(each) for each in range(50)]
                writer.write(b"data: x\\n\\n")
                await writer.drain()
                await asyncio.sleep(0.01)
    except ConnectionError:
        pass
    writer.close()
async def plain():
    global watching
    server = await asyncio.start_server(talk, "127.0.0.1", int(sys.argv[1]))
    watching = asyncio.ensure_future(watch())
    await server.serve_forever()
if __name__ == "__main__":
    asyncio.run(plain())
"""
_STREAMS = 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("stall", "cycles", "memory", "workers"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--times", type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its services end with it
    if arguments.what == "workers":
        return workers(arguments.times or 8)
    measure, times = {"stall": (stall, 50), "cycles": (cycles, 500), "memory": (memory, 100)}[arguments.what]
    with Services(arguments, 1) as services:
        (pid,) = services.pids
        print(f"process {pid}; load average {_load()}", flush=True)
        began = time.monotonic()
        try:
            measure(services, arguments.times or times)
        except OSError as error:
            print(f"the service does not answer: {error}")
        process = services.processes[0]
        ended = process.poll()
        state = "lives" if ended is None else f"has ended with {ended}"
        print(f"after {time.monotonic() - began:.0f} s process {pid} {state}; load average {_load()}")
        return 0 if ended is None else 1


class Services:
    """Services with streams open to each; `pids` of their Pythons."""

    def __init__(self, arguments: argparse.Namespace, count: int) -> None:
        self._arguments = arguments
        self._count = count
        self._stack = contextlib.ExitStack()
        self.pids: list[int] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        self._ports: list[int] = []

    def __enter__(self) -> Self:
        for _ in range(self._count):
            self._start()
        for port in self._ports:
            for _ in range(_STREAMS if self._count == 1 else 3):
                threading.Thread(target=_read_on, args=(port,), daemon=True).start()
        self.pids = [int(self.told(number)["pid"]) for number in range(self._count)]
        if self._arguments.root:
            self.pids = [process.pid for process in self.processes]
        time.sleep(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def told(self, number: int, path: str = "/told") -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self._ports[number], timeout=60)
        with contextlib.closing(connection):
            connection.request("GET", path)
            told: dict[str, Any] = json.loads(connection.getresponse().read())
            return told

    def _start(self) -> None:
        from diagnostics.proof.subjects.processes import free_port

        port = free_port()
        name = f"highwater_bench_{port}"
        folder = (self._arguments.root or Path("/")) / "tmp"
        source = folder / f"{name}.py"
        source.write_text(APP, encoding="utf-8")
        self._stack.callback(source.unlink)
        python, plain = self._arguments.python, self._arguments.plain or self._arguments.root
        if plain:
            words = [python, "-I", f"/tmp/{name}.py", str(port)]
        else:
            words = [python, "-m", "uvicorn", "--app-dir", str(folder), f"{name}:app"]
            words += ["--port", str(port), "--log-level", "error"]
        if self._arguments.root:
            root = self._arguments.root
            words = [
                "unshare",
                "--mount",
                "sh",
                "-c",
                f'mount -t proc proc {root}/proc && exec chroot {root} "$0" "$@"',
                *words,
            ]
        process = subprocess.Popen(words)
        self._stack.callback(process.wait)
        self._stack.callback(process.kill)
        self.processes.append(process)
        self._ports.append(port)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.told(len(self._ports) - 1)
                return
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise
                time.sleep(0.05)


def _read_on(port: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    with contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/stream")
        response = connection.getresponse()
        while response.read(16):
            pass


def stall(services: Services, times: int) -> None:
    (pid,) = services.pids
    with_it, without, took = [], [], []
    for _ in range(times):
        services.told(0)
        began = time.monotonic()
        attach(pid, patience=60)
        took.append(time.monotonic() - began)
        with_it.append(services.told(0)["gap"])
        detach(pid)
        time.sleep(0.3)
        services.told(0)
        time.sleep(took[-1])
        without.append(services.told(0)["gap"])
    for what, gaps in (("while attaching", with_it), ("in the same time without", without)):
        _tell(f"longest gap of the loop {what}", [gap for gap, _ in gaps])
        _tell("  without waits for a core", [gap for _, gap in gaps])
    _tell("attaching takes", took)


def cycles(services: Services, times: int) -> None:
    (pid,) = services.pids
    first = services.told(0, "/collected")
    for number in range(1, times + 1):
        _pair(pid)
        if number % 50 == 0 or number == times:
            now = services.told(0, "/collected")
            print(
                f"after {number} cycles: private memory {_mib(now['anonymous'] - first['anonymous'])}, "
                f"blocks {now['blocks'] - first['blocks']:+}, longest gap {now['gap'][0] * 1000:.0f} ms",
                flush=True,
            )


_ASKED = ("hello", "reading", "sample", "connections")


def _pair(pid: int) -> None:
    """Attach, ask what a monitor asks in its first second, detach."""
    attach(pid, patience=60)
    folder = AgentFolder.of(pid)
    assert folder is not None
    (path,) = folder.sockets()
    for operation in _ASKED:
        asyncio.run(ask(path, operation, patience=60))
    detach(pid)


_SETTLE_SECONDS = 1.0
_BLOCK = 5


def memory(services: Services, times: int) -> None:
    (pid,) = services.pids

    def settled() -> int:
        time.sleep(_SETTLE_SECONDS)
        return int(services.told(0, "/collected")["anonymous"])

    alone = [settled() for _ in range(min(times, 20))]
    print(f"by itself, over {len(alone)} readings: {_mib(alone[-1] - alone[0])}, range {_mib(max(alone) - min(alone))}")
    held = [alone[-1]]
    for _ in range(times):
        _pair(pid)
        held.append(settled())
    for number in (1, 2, 3, 10, 20, 50, 100, 200, 500):
        if number <= times:
            print(f"after {number}: {_mib(held[number] - held[0])}")
    print(f"after all {times}: {_mib(held[-1] - held[0])}, at most {_mib(max(held) - held[0])}")
    if times < 8 * _BLOCK:  # too few for an interval
        return
    middle, error = _slope(held[1 + times // 2 :])
    print(f"slope of the later half: {middle / 1024:+.2f} KiB each, 95 % interval {(middle - error) / 1024:+.2f} to "
          f"{(middle + error) / 1024:+.2f}")  # fmt: skip


def _slope(held: Sequence[int]) -> tuple[float, float]:
    """Bytes a pair, and half of the 95 % interval's width, from the means of blocks of neighbouring readings."""
    means = [statistics.mean(held[at : at + _BLOCK]) for at in range(0, len(held) - _BLOCK + 1, _BLOCK)]
    steps = [(later - sooner) / _BLOCK for sooner, later in pairwise(means)]
    # Normal instead of Student's t: at least nine steps where --times is 100.
    return statistics.mean(steps), 1.96 * statistics.stdev(steps) / len(steps) ** 0.5


def workers(times: int) -> int:
    """One uvicorn with several workers, and the command that a user would give."""
    from diagnostics.proof.subjects.processes import free_port

    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        Path(folder, "several.py").write_text(APP, encoding="utf-8")
        port = free_port()
        words = ["uvicorn", "--app-dir", folder, "several:app", "--port", str(port), "--workers", str(times)]
        serving = subprocess.Popen(
            [sys.executable, "-m", *words, "--log-level", "error", "--timeout-graceful-shutdown", "1"]
        )
        stack.callback(serving.wait)
        stack.callback(serving.terminate)
        deadline = time.monotonic() + 120
        while True:
            with contextlib.suppress(OSError, NotFoundError):
                if _answers(port) and len(workers_of(serving.pid)) == times:
                    break
            if time.monotonic() > deadline:
                raise TimeoutError(f"uvicorn has not started {times} workers")
            time.sleep(0.2)
        for _ in range(3 * times):
            threading.Thread(target=_read_on, args=(port,), daemon=True).start()
        time.sleep(1)
        print(f"uvicorn {serving.pid} with {times} workers, {3 * times} streams; load average {_load()}", flush=True)
        began = time.monotonic()
        command = [sys.executable, "-m", "diagnostics", "attach", "--all-workers", str(serving.pid)]
        command += ["--listen", "127.0.0.1:0", "--dir", str(Path(folder, "dir")), "--patience", "60"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as attaching:
            assert attaching.stdout
            at = []
            for line in attaching.stdout:
                if re.match(r"attached to process \d+", line):
                    at.append(time.monotonic() - began)
                if len(at) == times or line.startswith("diagnostics http"):
                    break
            attaching.send_signal(signal.SIGINT)
            left = sum(line.startswith("detached from") for line in attaching.stdout)
        print(
            f"{len(at)} workers attached {max(at, default=0):.2f} s after the command's start (the first after "
            f"{min(at, default=0):.2f} s), {left} detached; load average {_load()}"
        )
        return 0 if len(at) == left == times and serving.poll() is None else 1


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request("GET", "/told")
        return connection.getresponse().status == 200


def _load() -> str:
    return f"{os.getloadavg()[0]:.1f}"


def _mib(size: int) -> str:
    return f"{size / 2**20:+.2f} MiB"


def _tell(what: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    at = {share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99)}
    print(f"{what}: " + ", ".join(f"p{share * 100:g} {value * 1000:.1f} ms" for share, value in at.items()))


if __name__ == "__main__":
    sys.exit(main())

"""What attaching costs a loaded service, and whether it survives it: stalls, crashes, memory, many workers at once.

    python tests/bench/bench_attach.py stall   [--python PYTHON] [--times 50]
    python tests/bench/bench_attach.py cycles  [--python PYTHON] [--times 500]
    python tests/bench/bench_attach.py workers [--times 8]

PYTHON runs the service, and needs nothing installed but uvicorn (`--plain`: asyncio's own server, nothing at all); `--root`
runs it in another root, by chroot. The service measures itself: a task of its event loop sleeps 1 ms at a time and keeps the
longest gap. Beside each attach the same time is measured without one, since what the machine does meanwhile is in both. What
is left after cycles is counted after a full collection, which the service makes for that.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from diagnostics.monitor.attach.attach import attach, detach

# An ASGI app for uvicorn, and the same behind asyncio's own server.
APP = """
import asyncio, gc, json, os, sys, time
longest = 0.0
async def watch():
    global longest
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.001)
        now = time.monotonic()
        longest, last = max(longest, now - last - 0.001), now
def told(collected=False):
    global longest
    if collected:
        gc.collect()
    gap, longest = longest, 0.0
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
    parser.add_argument("what", choices=("stall", "cycles", "workers"))
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--root", type=Path)
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--times", type=int)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # its services end with it
    with Services(arguments, (arguments.times or 8) if arguments.what == "workers" else 1) as services:
        print(f"{services.told(0)}", flush=True)
        if arguments.what == "workers":
            return workers(services)
        return (
            stall(services, arguments.times or 50)
            if arguments.what == "stall"
            else cycles(services, arguments.times or 500)
        )


class Services:
    """Services with streams open to each; `pids` of their Pythons."""

    def __init__(self, arguments: argparse.Namespace, count: int) -> None:
        self._arguments = arguments
        self._count = count
        self._stack = contextlib.ExitStack()
        self.pids: list[int] = []
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
            words = [
                python,
                "-m",
                "uvicorn",
                "--app-dir",
                str(folder),
                f"{name}:app",
                "--port",
                str(port),
                "--log-level",
                "error",
            ]
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
        self.processes = [*getattr(self, "processes", []), process]
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


def stall(services: Services, times: int) -> int:
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
    _tell("longest gap of the loop while attaching", with_it)
    _tell("longest gap in the same time without", without)
    _tell("attaching takes", took)
    return 0


def cycles(services: Services, times: int) -> int:
    (pid,) = services.pids
    first = services.told(0, "/collected")
    began, at = time.monotonic(), []
    for number in range(1, times + 1):
        attach(pid, patience=60)
        detach(pid)
        if number in (1, 2, 5) or number % 50 == 0:
            time.sleep(0.5)
            now = services.told(0, "/collected")
            at.append((number, now))
            print(
                f"after {number}: private memory {(now['anonymous'] - first['anonymous']) / 2**20:+.2f} MiB, "
                f"blocks {now['blocks'] - first['blocks']:+}, threads {now['threads'] - first['threads']:+}",
                flush=True,
            )
    print(f"{times} cycles in {time.monotonic() - began:.0f} s, process {pid} lives: {os.path.exists(f'/proc/{pid}')}")
    return 0


def workers(services: Services) -> int:
    began = time.monotonic()
    with ThreadPoolExecutor(4) as several:
        list(several.map(lambda pid: attach(pid, patience=60), services.pids))
    print(f"{len(services.pids)} workers attached in {time.monotonic() - began:.2f} s")
    for pid in services.pids:
        detach(pid)
    return 0


def _tell(what: str, seconds: Sequence[float]) -> None:
    ordered = sorted(seconds)
    at = {share: ordered[min(len(ordered) - 1, int(share * len(ordered)))] for share in (0.5, 0.9, 0.99)}
    print(f"{what}: " + ", ".join(f"p{share * 100:g} {value * 1000:.1f} ms" for share, value in at.items()))


if __name__ == "__main__":
    sys.exit(main())

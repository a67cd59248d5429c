"""What a window costs a real service at several loads: a FastAPI service under uvicorn and `diagnostics run`, streaming.

Requests come at a fixed rate, whether the answers keep up or not, so that a service that is too slow shows as one. The
rate is set from the CPU time of a request, so that the service uses the share of a core that is asked for.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]

SERVICE = """
import json
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

app = FastAPI()
recent = {}

class Message(BaseModel):
    role: str
    content: str

class Chat(BaseModel):
    model: str
    messages: list[Message]
    user: str

@app.post("/chat")
async def chat(chat: Chat):
    recent[chat.user] = chat
    async def events():
        for number, word in enumerate(" ".join(message.content for message in chat.messages).split()):
            yield f"data: {json.dumps({'id': number, 'choices': [{'delta': {'content': word}}]})}\\n\\n"
    return StreamingResponse(events(), media_type="text/event-stream")
"""
BODY = json.dumps({"model": "m", "user": "u1", "messages": [{"role": "user", "content": "a word and another " * 5}]})
SHARES = (0.05, 0.18, 0.25, 0.5, 0.8)
METHODS: dict[str, dict[str, Any]] = {
    "tracemalloc, 1 frame": {"kind": "tracemalloc", "frames": 1},
    "tracemalloc, 5 frames": {"kind": "tracemalloc", "frames": 5},
    "memray": {"kind": "memray"},
}
WINDOW_SECONDS = 6


@dataclass
class Service:
    """The service, its monitor, and the seconds that requests took."""

    port: int
    monitor: str
    pid: int

    def cpu(self) -> float:
        """CPU seconds since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.monitor + path, data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return json.load(error)


@contextmanager
def service() -> Iterator[Service]:
    with tempfile.TemporaryDirectory(prefix="hw-load-") as folder:
        (Path(folder) / "loaded.py").write_text(SERVICE)
        command = [
            sys.executable,
            "-m",
            "uvicorn",
            "loaded:app",
            "--port",
            "0",
            "--no-access-log",
            "--timeout-keep-alive",
            "600",
        ]
        log = Path(folder) / "log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *command],
                cwd=folder, stdout=output, stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "DIAGNOSTICS_DIR": f"{folder}/d", "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        try:
            port = _awaited(log, r"running on http://127\.0\.0\.1:(\d+)")
            monitor = _awaited(log, r"(http://127\.0\.0\.1:\d+)/debug/memory")
            one = Service(int(port), monitor, 0)
            while not (workers := one.ask("/debug/memory")["workers"]) or workers[0]["state"] != "answering":
                time.sleep(0.1)
            one.pid = workers[0]["pid"]
            yield one
        finally:
            process.terminate()
            process.wait(30)


def _awaited(log: Path, pattern: str) -> str:
    ends = time.monotonic() + 60
    while time.monotonic() < ends:
        if found := re.search(pattern, log.read_text()):
            return found[1]
        time.sleep(0.05)
    raise SystemExit(log.read_text())


class Load:
    """Requests at a fixed rate over kept connections; a request that finds none free opens one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.took: list[float] = []

    async def run(self, rate: float, seconds: float) -> None:
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - began) < seconds:
                while sent < now * rate:
                    group.create_task(self._one())
                    sent += 1
                await asyncio.sleep(0.002)

    async def _one(self) -> None:
        began = time.monotonic()
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"POST /chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
        )
        while b"\r\n0\r\n\r\n" not in b"\r\n" + (await reader.readuntil(b"\r\n\r\n")):
            pass
        self._idle.append((reader, writer))
        self.took.append(time.monotonic() - began)

    def close(self) -> None:
        for _reader, writer in self._idle:
            writer.close()


async def _measure(one: Service, share: float, request_cpu: float, body: dict[str, Any]) -> dict[str, Any]:
    """One forced capture under load: its manifest, with the latencies before and during it."""
    load = Load(one.port)
    rate = share / request_cpu
    await load.run(rate, 2.0)
    before, load.took = load.took, []
    running = asyncio.create_task(load.run(rate, WINDOW_SECONDS + 4.0))
    capture = await asyncio.to_thread(one.ask, "/debug/memory/captures", body)
    while capture["state"] in ("pending", "running"):
        await asyncio.sleep(0.1)
        capture = await asyncio.to_thread(one.ask, f"/debug/memory/captures/{capture['id']}")
    during = load.took
    await running
    while capture["state"] not in ("done", "failed"):
        await asyncio.sleep(0.2)
        capture = await asyncio.to_thread(one.ask, f"/debug/memory/captures/{capture['id']}")
    load.close()
    return {**capture, "p99_ms": (_p99(before), _p99(during))}


def _p99(took: list[float]) -> float:
    return 1000 * statistics.quantiles(took, n=100)[98] if len(took) > 1 else float("nan")


async def _request_cpu(one: Service) -> float:
    load = Load(one.port)
    await load.run(50, 2.0)  # warm
    began = one.cpu()
    load.took = []
    await load.run(50, 4.0)
    load.close()
    return (one.cpu() - began) / len(load.took)


def table(shares: tuple[float, ...] = SHARES) -> Iterator[str]:
    """Markdown rows: what was estimated, whether it would have been refused, and what it did cost."""
    yield "| load | capture | likely, worst | answer | CPU before, during | times | p99 before, during | ended |"
    yield "|---|---|---|---|---|---|---|---|"
    with service() as one:
        cpu = asyncio.run(_request_cpu(one))
        for share in shares:
            for name, options in METHODS.items():
                body = {**options, "seconds": WINDOW_SECONDS, "force": True, "render": False}
                yield _row(share, name, asyncio.run(_measure(one, share, cpu, body)))


def _row(share: float, name: str, told: dict[str, Any]) -> str:
    estimate, result = told["estimate"], told["result"]
    if result is None:
        return f"| {share:.0%} | {name} | {told['error']['message']} |"
    cpu = result["measured"]["cpu_share"]
    likely, worst = estimate.get("likely_slowdown", float("nan")), estimate["slowdown"]
    before, during = cpu["before"], cpu["during"]
    return (
        f"| {100 * share:.0f} % | {name} | {likely:g}, {worst:g} times | {'refused' if told['forced'] else 'taken'} "
        f"| {100 * before:.0f} %, {100 * during:.0f} % | {during / max(before, 1e-9):.1f} "
        f"| {told['p99_ms'][0]:.0f}, {told['p99_ms'][1]:.0f} ms | {'early' if result['cut_short'] else 'whole'} |"
    )


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)

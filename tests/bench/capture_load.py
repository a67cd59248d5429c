"""What a window costs a real service at several loads: a FastAPI service under uvicorn and `diagnostics run`, streaming.

    python tests/bench/bench_captures.py --only services

Requests come at a fixed rate, which is set from the CPU time of a request, so that the service uses the share of a core that
is asked for. Those that would be more than 16 at once are not sent, and count as not answered: so a service that is too
slow shows, and the CPU time of a request stays that of a service without a queue. What a window costs is that CPU time
in it against before it, which other work on the machine changes little.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from diagnostics.analysis.cost import SATURATED  # noqa: E402

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
WINDOW_SECONDS = 5
BEFORE_SECONDS = 3.0
MOST_AT_ONCE = 16


@dataclass
class Service:
    """The service and its monitor."""

    port: int
    monitor: str
    pid: int

    def cpu(self) -> float:
        """CPU seconds since its start."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
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
        (Path(folder) / "loaded.py").write_text(SERVICE, encoding="utf-8")
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
        if found := re.search(pattern, log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.05)
    raise SystemExit(log.read_text(encoding="utf-8"))


class Load:
    """Requests at a fixed rate over kept connections; a request that finds none free opens one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._in_flight = 0
        self.asked = 0
        self.answered = 0

    def forget(self) -> None:
        self.asked = self.answered = 0

    async def run(self, rate: float, seconds: float) -> None:
        began, sent = time.monotonic(), 0
        async with asyncio.TaskGroup() as group:
            while (now := time.monotonic() - began) < seconds:
                while sent < now * rate:
                    sent += 1
                    self.asked += 1
                    if self._in_flight < MOST_AT_ONCE:
                        self._in_flight += 1
                        group.create_task(self._one())
                await asyncio.sleep(0.002)

    async def _one(self) -> None:
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            b"POST /chat HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode()
        )
        while b"\r\n0\r\n\r\n" not in b"\r\n" + (await reader.readuntil(b"\r\n\r\n")):
            pass
        self._idle.append((reader, writer))
        self._in_flight -= 1
        self.answered += 1

    def close(self) -> None:
        for _reader, writer in self._idle:
            writer.close()


@dataclass(frozen=True)
class Cost:
    """CPU seconds of a request, and the share of those asked for that was answered: before the window and in it."""

    capture: dict[str, Any]
    cpu: tuple[float, float]
    answered: tuple[float, float]


async def _measure(one: Service, share: float, body: dict[str, Any]) -> Cost:
    """One forced capture under load. The rate is such that the service would use `share` of a core without it."""
    load = Load(one.port)
    # Twice, since a request costs less where many come at once.
    rate = share / await _request_cpu(one, 100)
    rate = share / await _request_cpu(one, rate)
    running = asyncio.create_task(load.run(rate, BEFORE_SECONDS + WINDOW_SECONDS + 3.0))
    began = one.cpu()
    await asyncio.sleep(BEFORE_SECONDS)
    usual, before = (one.cpu() - began) / max(1, load.answered), load.answered / max(1, load.asked)
    capture = await asyncio.to_thread(one.ask, "/debug/memory/captures", body)
    load.forget()
    began = one.cpu()
    while capture["state"] in ("pending", "running"):
        await asyncio.sleep(0.1)
        capture = await asyncio.to_thread(one.ask, f"/debug/memory/captures/{capture['id']}")
    traced, during = (one.cpu() - began) / max(1, load.answered), load.answered / max(1, load.asked)
    await running
    while capture["state"] not in ("done", "failed"):
        await asyncio.sleep(0.2)
        capture = await asyncio.to_thread(one.ask, f"/debug/memory/captures/{capture['id']}")
    load.close()
    return Cost(capture, (usual, traced), (before, during))


async def _request_cpu(one: Service, rate: float) -> float:
    """CPU seconds of a request: by this, and not by the clock, since others may have the cores."""
    load = Load(one.port)
    began = one.cpu()
    await load.run(rate, 2.0)
    load.close()
    return (one.cpu() - began) / max(1, load.answered)


def table(shares: tuple[float, ...] = SHARES) -> Iterator[str]:
    """Markdown rows: what was estimated, what would have been answered without force, and what it did cost."""
    yield "| load | capture | estimate: likely, at worst | answer | measured | answered before, in it | window |"
    yield "|---|---|---|---|---|---|---|"
    with service() as one:
        asyncio.run(_request_cpu(one, 100))  # warm
        for share in shares:
            for name, options in METHODS.items():
                body = {**options, "seconds": WINDOW_SECONDS, "force": True, "render": False}
                yield _row(share, name, asyncio.run(_measure(one, share, body)))


def _row(share: float, name: str, cost: Cost) -> str:
    estimate, result = cost.capture["estimate"], cost.capture["result"]
    times = cost.cpu[1] / cost.cpu[0]
    likely, worst = estimate["likely_slowdown"], estimate["slowdown"]
    # By the load that was meant: what the service had of a core is what others left it.
    refused = share * likely > SATURATED
    answer = "refused" if refused else "taken, with a warning" if share * worst > SATURATED else "taken"
    window = cost.capture["error"]["code"] if result is None else "cut short" if result["cut_short"] else "whole"
    return (
        f"| {100 * share:.0f} % | {name} | {100 * share * likely:.0f} %, {100 * share * worst:.0f} % of a core | {answer} "
        f"| {100 * share * times:.0f} % ({times:.1f} times) | {cost.answered[0]:.0%}, {cost.answered[1]:.0%} | {window} |"
    )


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)

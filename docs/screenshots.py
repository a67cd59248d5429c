"""Makes the pictures in docs/images from live services: `python docs/screenshots.py` (needs chromium).

page-light.webp   a service that buffers for its clients without a bound, some of which do not read
page-dark.webp    the reference relay under load
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.chromium import Browser  # noqa: E402  # found once the path is set

IMAGES = Path(__file__).parent / "images"
LOAD_SECONDS = 75.0
WINDOW = 1280, 1060
PATIENCE_SECONDS = 60.0

LEAKY = """
import asyncio, collections
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from diagnostics import instrument

app = FastAPI()
ledger = instrument(app, monitor=True)

@app.get("/chat")
async def chat(speed: float = 1.0):
    async def events():
        backlog = collections.deque()
        with ledger.stream("/chat") as stream:
            async def read_upstream():
                while True:
                    for _ in range(40):
                        backlog.append(b"data: " + bytes(500) + b"\\n\\n")
                        stream.hold(508)
                    await asyncio.sleep(0.1)
            async with asyncio.TaskGroup() as group:
                group.create_task(read_upstream())
                while True:
                    while backlog:
                        chunk = backlog.popleft()
                        yield chunk
                        stream.release(len(chunk))
                    await asyncio.sleep(0.05)
    return StreamingResponse(events(), media_type="text/event-stream")
"""


@contextlib.contextmanager
def running(*command: str, folder: Path) -> Iterator[tuple[str, str]]:
    """(the service's address, its monitor's) while the command runs."""
    environment = {
        **os.environ,
        "DIAGNOSTICS_DIR": str(folder / "dir"),
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
    }
    log = folder / "output"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
    try:
        yield (
            _printed(log, r"(?:relay|Uvicorn running on)\s+(http://[\d.:]+)"),
            _printed(log, r"(http://[\d.:]+)/debug/memory"),
        )
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _printed(log: Path, pattern: str) -> str:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        found = re.search(pattern, log.read_text(encoding="utf-8"))
        if found:
            return found[1]
        time.sleep(0.1)
    raise SystemExit(f"{pattern} was not printed:\n{log.read_text(encoding='utf-8')}")


def client(address: str, path: str, reads: bool, over: threading.Event) -> None:
    """One client after the other, each reading all that it gets, or nothing after the headers."""
    host, port = address.removeprefix("http://").split(":")
    while not over.is_set():
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            while not over.wait(0.02) and (not reads or connection.recv(65536)):
                pass


def capture(monitor: str, kind: str, folder: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "diagnostics", "capture", monitor, "--kind", kind, "-o", str(folder)],
        check=True, capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def picture(address: str, name: str, dark: bool, folder: Path) -> None:
    with Browser(folder, *WINDOW) as browser:
        browser.open(f"{address}/debug/memory", dark)
        browser.until("document.querySelectorAll('#buttons button').length && document.querySelector('#chart path')")
        browser.until("state.points.length > 20")
        (IMAGES / name).write_bytes(browser.picture())
    print(f"{IMAGES / name}: {(IMAGES / name).stat().st_size:,} bytes")


def shoot(command: list[str], path: str, slow: int, fast: int, name: str, dark: bool) -> None:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        (folder / "leaky.py").write_text(LEAKY, encoding="utf-8")
        with running(*command, folder=folder) as (service, monitor):
            over = threading.Event()
            clients = [
                threading.Thread(target=client, args=(service, path, number < fast, over))
                for number in range(slow + fast)
            ]
            for thread in clients:
                thread.start()
            try:
                time.sleep(LOAD_SECONDS / 2)
                capture(monitor, "retained", folder)
                time.sleep(LOAD_SECONDS / 4)
                capture(monitor, "tasks", folder)
                time.sleep(LOAD_SECONDS / 4)
                picture(monitor, name, dark, folder)
            finally:
                over.set()
                for thread in clients:
                    thread.join()


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    run = ["-m", "diagnostics", "run", "--listen", "127.0.0.1:0", "--", sys.executable, "-m", "uvicorn"]
    shoot([*run, "leaky:app", "--port", "0", "--no-access-log"], "/chat", 4, 6, "page-light.webp", dark=False)
    relay = ["-m", "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0"]
    shoot(relay, "/stream?prompt=hello", 2, 20, "page-dark.webp", dark=True)


if __name__ == "__main__":
    main()

"""Diagnostics must not be the outage: what they do where there is little memory or CPU, and whether all of it goes on.

    python tests/bench/bench_own_limits.py [--only NAME,NAME] [--streams N] [--write docs/reliability.md]

Three places, each with a service of open streams and a monitor beside it. Every kind of capture is asked for, one after the
other, without force, and the status after each:

    small monitor   the monitor alone in a cgroup of 64 MiB
    full service    the service alone in a cgroup of 512 MiB, of which it has 90 %
    busy machine    a process that never rests for each core

Exits with 1 where the service or the monitor was killed, a stream was cut off, or a status was not answered. Needs cgroups that
it may write.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import http.client
import json
import os
import platform
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from diagnostics.agent import inject
from diagnostics.monitor.kernel.hierarchy import find_cgroup
from tests.documents import write

MIB = 2**20
MONITOR_BYTES, SERVICE_BYTES = 64 * MIB, 512 * MIB
FULL = 0.9
KINDS = ("tasks", "retained", "objects", "tracemalloc", "memray")
MARKS = ("<!-- own limits: written by bench_own_limits.py -->", "<!-- end of own limits -->")
PATIENCE_SECONDS = 120.0
SERVICE = """
import asyncio, sys
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

kept = []

async def events():
    while True:
        yield b"data: x\\n\\n"
        await asyncio.sleep(5)

async def stream(request):
    return StreamingResponse(events(), media_type="text/event-stream")

async def fill(request):
    kept.extend(bytearray(b"x" * 65536) for _ in range(int(request.path_params["mib"]) * 16))
    return JSONResponse(len(kept))

app = Starlette(routes=[Route("/stream", stream), Route("/fill/{mib}", fill)])
"""


@dataclass
class Place:
    """Where it is tried. `limited`: whose cgroup has a limit, of so many bytes; `streams`: open meanwhile."""

    name: str
    says: str
    streams: int
    limited: str | None = None
    limit: int = 0
    hogs: int = 0


@dataclass
class Row:
    place: Place
    outcomes: dict[str, str] = field(default_factory=dict)
    most: int | None = None
    slowest_status: float = 0.0
    faults: list[str] = field(default_factory=list)


def places(streams: int) -> list[Place]:
    return [
        Place("small monitor", f"monitor in 64 MiB, {streams:,} open streams", streams, "monitor", MONITOR_BYTES),
        Place("full service", "service in 512 MiB, 90 % used, 100 open streams", 100, "service", SERVICE_BYTES),
        Place("busy machine", "no core ever at rest, 100 open streams", 100, hogs=os.cpu_count() or 1),
    ]


@contextlib.contextmanager
def cgroup(limit: int) -> Iterator[Path]:
    found = find_cgroup(os.getpid())
    if isinstance(found, str):
        raise SystemExit(f"no memory cgroup can be made here: {found}")
    folder = found.mount / f"highwater-own-limits-{os.getpid()}"
    folder.mkdir()
    (folder / ("memory.max" if found.version == 2 else "memory.limit_in_bytes")).write_text(
        str(limit), encoding="utf-8"
    )
    try:
        yield folder
    finally:
        for _ in range(100):
            if not (folder / "cgroup.procs").read_text(encoding="utf-8"):
                break
            time.sleep(0.1)
        folder.rmdir()


def into(folder: Path | None, command: list[str]) -> list[str]:
    """The command, in a cgroup from its first instruction on."""
    return command if folder is None else ["sh", "-c", 'echo $$ > "$0"; exec "$@"', f"{folder}/cgroup.procs", *command]


@contextlib.contextmanager
def running(command: list[str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, **more) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()


def ask(port: int, method: str, path: str, body: Any = None) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    with contextlib.closing(connection):
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        return json.loads(connection.getresponse().read())


def until(port: int, path: str, settled: Any) -> Any:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        with contextlib.suppress(OSError, ValueError, KeyError, IndexError):
            told = ask(port, "GET", path)
            if settled(told):
                return told
        if time.monotonic() > deadline:
            raise SystemExit(f"{path} on port {port} is not as it should be after {PATIENCE_SECONDS:g} s")
        time.sleep(0.2)


def measure(place: Place) -> Row:
    row = Row(place)
    with contextlib.ExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="highwater-own-")))
        (root / "service.py").write_text(SERVICE, encoding="utf-8")
        port, monitor_port = _free_port(), _free_port()
        folder = stack.enter_context(cgroup(place.limit)) if place.limited else None
        for _ in range(place.hogs):
            stack.enter_context(running([sys.executable, "-c", "while True: pass"]))
        environment = {**os.environ, "DIAGNOSTICS_DIR": str(root / "dir"), "PYTHONDONTWRITEBYTECODE": ""}
        monitor = stack.enter_context(
            running(
                into(
                    folder if place.limited == "monitor" else None,
                    [sys.executable, "-m", "diagnostics", "monitor", "--listen", f"127.0.0.1:{monitor_port}"],
                ),
                env=environment, stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        service = stack.enter_context(
            running(
                into(
                    folder if place.limited == "service" else None,
                    [sys.executable, "-m", "uvicorn", "service:app", "--port", str(port), "--log-level", "error"],
                ),
                env={**environment, "PYTHONPATH": str(inject.HOOK_FOLDER)}, cwd=root,
            )
        )  # fmt: skip
        until(monitor_port, "/debug/memory", lambda told: told["workers"][0]["state"] == "answering")
        clients = [stack.enter_context(_stream(port)) for _ in range(place.streams)]
        if place.limited == "service":
            assert folder is not None
            while (left := FULL * place.limit - _used(folder)) > 2 * MIB:
                ask(port, "GET", f"/fill/{int(left / 2 / MIB)}")
        for kind in KINDS:
            row.outcomes[kind] = _captured(monitor_port, kind)
            began = time.monotonic()
            ask(monitor_port, "GET", "/debug/memory")
            row.slowest_status = max(row.slowest_status, time.monotonic() - began)
            if folder is not None:
                row.most = max(row.most or 0, _peak(folder))
        both = (("monitor", monitor), ("service", service))
        row.faults += [f"the {name} has ended" for name, one in both if one.poll() is not None]
        cut = sum(_is_cut(client) for client in clients)
        row.faults += [f"{cut} streams were cut off"] if cut else []
    return row


def _captured(port: int, kind: str) -> str:
    try:
        begun = ask(port, "POST", "/debug/memory/captures", {"kind": kind})
        if begun.get("error"):
            return f"refused ({begun['error']['code']})"
        told = until(
            port, f"/debug/memory/captures/{begun['id']}", lambda now: now["state"] in ("done", "failed", "cancelled")
        )
    except (OSError, http.client.HTTPException) as error:
        return f"no answer ({type(error).__name__})"
    if told["state"] != "done":
        return f"{told['state']} ({(told.get('error') or {}).get('code')})"
    given_up = [note for note in told["result"].get("not_covered") or () if "this monitor may use" in note]
    return f"taken, pages left out: {len(given_up)}" if given_up else "taken"


@contextlib.contextmanager
def _stream(port: int) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_SECONDS) as client:
        client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert client.recv(1)
        yield client


def _is_cut(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        while client.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _used(folder: Path) -> int:
    names = ("memory.current", "memory.usage_in_bytes")
    return int(next(folder / name for name in names if (folder / name).exists()).read_text(encoding="utf-8"))


def _peak(folder: Path) -> int:
    names = ("memory.peak", "memory.max_usage_in_bytes")
    return int(next(folder / name for name in names if (folder / name).exists()).read_text(encoding="utf-8"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def table(rows: list[Row]) -> str:
    load = os.getloadavg()[0]
    measured = (
        f"Measured on {datetime.datetime.now(datetime.UTC):%Y-%m-%d}: {os.cpu_count()} cores, Linux {platform.release()}, "
        f"Python {platform.python_version()}, load average at the end {load:.1f}."
    )
    lines = [
        measured,
        "",
        f"| where | {' | '.join(KINDS)} | most memory of the cgroup | slowest status | what went wrong |",
        f"|---|{'---|' * len(KINDS)}---|---|---|",
    ]
    for row in rows:
        most = "" if row.most is None else f"{row.most / MIB:.0f} of {row.place.limit / MIB:.0f} MiB"
        cells = [
            row.place.says,
            *row.outcomes.values(),
            most,
            f"{row.slowest_status:.1f} s",
            "; ".join(row.faults) or "nothing",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", help="some of the places, by name, separated by commas")
    parser.add_argument("--streams", type=int, default=5000, help="beside the small monitor (default 5000)")
    parser.add_argument("--write", type=Path, help="put the table into this document")
    options = parser.parse_args()
    most_files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    wanted = options.only.split(",") if options.only else None
    rows = []
    for place in places(options.streams):
        if wanted is None or place.name in wanted:
            rows.append(measure(place))
            print(table(rows[-1:]), flush=True)
    if options.write:
        write(options.write, table(rows), MARKS)
    return 1 if any(row.faults for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())

"""The wheel with each extra, in an empty environment of each Python: what came with it works, and what did not says so."""

from __future__ import annotations

import hashlib
import json
import math
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diagnostics.analysis.formats import native
from diagnostics.analysis.profile import Frame, Profile, Sample, ValueType
from diagnostics.cli import COMMANDS
from diagnostics.monitor.recording.ring import Header, RingFile, RingSize
from diagnostics.monitor.recording.vitals import FIELDS
from diagnostics.proof.subjects.processes import free_port
from tests.installs.environments import ROOT, VERSIONS, Environment, interpreters

Start = Callable[..., Any]
Check = Callable[[Environment, Start], None]

APP = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("served"))])
"""
# An app of no framework, its server's part played by hand: the agent has to be there between start-up and shutdown.
AGENT = """
import asyncio, os, socket, sys

from diagnostics import Profile, StreamLedger, instrument
from diagnostics.protocol import MAX_REPLY_BYTES, agent_socket, frame, read_frame, request

async def app(scope, receive, send):
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return

def ask(operation):
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(30)
        agent.connect(agent_socket(os.environ["DIAGNOSTICS_DIR"], os.getpid()))
        agent.sendall(frame(request(operation)))
        return read_frame(agent, MAX_REPLY_BYTES)["result"]

async def main():
    ledger = instrument(app)
    to_app, from_app = asyncio.Queue(), asyncio.Queue()
    serving = asyncio.create_task(ledger({"type": "lifespan"}, to_app.get, from_app.put))
    await to_app.put({"type": "lifespan.startup"})
    await from_app.get()
    with ledger.stream("/chat") as stream:
        stream.hold(4096)
        told = await asyncio.to_thread(ask, "reading")
        print(told["ledger"]["buffered_bytes_max"], told["allocators"]["python_live_bytes"] > 0)
    await to_app.put({"type": "lifespan.shutdown"})
    await serving

asyncio.run(main())
"""
FOREIGN = "from importlib.metadata import distributions; print(sorted({found.name for found in distributions()}))"
WHERE = "import diagnostics, relay; print(diagnostics.__file__); print(relay.__file__)"


def succeeds(environment: Environment, *words: str) -> str:
    done = environment.run(*words)
    assert done.returncode == 0, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def refused_for_want_of(environment: Environment, extra: str, *words: str) -> str:
    """The command ends with 2 and one line that names the extra; returns what it advises to type."""
    done = environment.run(*words)
    assert done.returncode == 2, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
    (line,) = done.stderr.splitlines()
    advice = re.search(rf"pip install 'highwater-diagnostics\[{extra}\]'$", line)
    assert advice is not None, line
    return advice[0]


def profile() -> bytes:
    samples = (Sample((Frame("append", "/srv/app.py", 3),), (4096, 1), ()),)
    types = (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count"))
    return native.encode(Profile("tracemalloc", types, samples, 1_790_000_000.0, 5.0, ()))


def recording(path: Path) -> None:
    header = Header(
        tuple((field.name, field.unit) for field in FIELDS),
        (RingSize(1.0, 90),),
        {"pid": 1, "worker": "0", "started": 1.8e9},
    )
    file = RingFile.create(path, header)
    file.append(0, [{"time": 1.8e9, "rss_bytes": 50 * 2**20}.get(field.name, math.nan) for field in FIELDS])
    file.close()


def base(environment: Environment, start: Start) -> None:
    installed = json.loads(succeeds(environment, "python", "-c", FOREIGN).replace("'", '"'))
    assert set(installed) - {"pip", "setuptools"} == {"highwater-diagnostics"}
    assert succeeds(environment, "python", "-c", AGENT).split() == ["4096", "True"]
    (environment.folder / "before.json").write_bytes(profile())
    assert "append" in succeeds(environment, "diagnostics", "top", "before.json")
    assert "append" in succeeds(environment, "diagnostics", "list", "append", "before.json")
    succeeds(environment, "diagnostics", "convert", "before.json", "after.pb.gz")
    succeeds(environment, "diagnostics", "diff", "before.json", "after.pb.gz")
    succeeds(environment, "diagnostics", "flamegraph", "after.pb.gz", "-o", "flame.html")
    assert "<script>" in (environment.folder / "flame.html").read_text(encoding="utf-8")
    recording(environment.folder / "a.ring")
    assert "50.00 MiB" in succeeds(environment, "diagnostics", "blackbox", "a.ring")
    for name, (_, _, extra) in COMMANDS.items():
        if extra:
            refused_for_want_of(environment, extra, "diagnostics", name, "--help")
    refused_for_want_of(environment, "relay", "relay", "serve")
    # What the last word of an error is, is typed: it is enough, wherever the wheel came from.
    advice = refused_for_want_of(environment, "monitor", "diagnostics", "run", "--help")
    succeeds(environment, "bash", "-c", advice.replace("pip install", "pip install --quiet"))
    succeeds(environment, "diagnostics", "run", "--help")


def monitor(environment: Environment, start: Start) -> None:
    (environment.folder / "app.py").write_text(APP, encoding="utf-8")
    command = ("python", "-m", "uvicorn", "app:app", "--port", "0")
    service = start(environment, "diagnostics", "run", "--listen", "127.0.0.1:0", "--", *command)
    url = service.wait_for("diagnostics http", patience=60).split()[1].removesuffix("/debug/memory")
    service.wait_for("Uvicorn running", patience=60)
    until(lambda: fetched(f"{url}/debug/memory")["workers"][0]["state"] == "answering")
    assert b"<!doctype html>" in read(f"{url}/debug/memory", accept="text/html").lower()
    assert b"memory_rss_bytes" in read(f"{url}/metrics")
    succeeds(environment, "diagnostics", "status", url)
    succeeds(environment, "diagnostics", "capture", url, "--kind", "tracemalloc", "--seconds", "0.5", "-o", "captures")
    (taken,) = environment.folder.glob("captures/*-tracemalloc/profile.json")
    succeeds(environment, "diagnostics", "top", str(taken))
    if "memray" not in succeeds(environment, "python", "-m", "pip", "list"):
        done = environment.run("diagnostics", "capture", url, "--kind", "memray", "--seconds", "1")
        assert done.returncode == 2, done.stderr
        assert "pip install memray" in done.stderr
        succeeds(environment, "diagnostics", "scenarios")
        refused_for_want_of(environment, "proof", "diagnostics", "verify", "unbounded_buffer")
    assert service.end(patience=60) == -signal.SIGTERM  # by the signal, as the command itself

    instrumented(environment, start)


def instrumented(environment: Environment, start: Start) -> None:
    """The README's two lines, in a service that starts its monitor itself, and its lines for what a service buffers."""
    two_lines, buffers = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (environment.folder / "service.py").write_text(
        f"{APP}\n{two_lines}\nchunk = b'x' * 4096\n{buffers}", encoding="utf-8"
    )
    listen = f"127.0.0.1:{free_port()}"
    service = start(
        environment, "python", "-m", "uvicorn", "service:app", "--port", "0", env={"DIAGNOSTICS_LISTEN": listen}
    )
    service.wait_for("Uvicorn running", patience=60)

    def counted() -> bool:
        try:
            workers = fetched(f"http://{listen}/debug/memory")["workers"]
        except OSError:
            return False
        return [worker["connections"]["source"] for worker in workers if worker["state"] == "answering"] == ["ledger"]

    until(counted)
    service.end(patience=60)


def memray(environment: Environment, start: Start) -> None:
    (environment.folder / "allocating.py").write_text("kept = bytearray(5_000_000)\n", encoding="utf-8")
    succeeds(environment, "python", "-m", "memray", "run", "--quiet", "-o", "taken.bin", "allocating.py")
    assert "4.7" in succeeds(environment, "diagnostics", "top", "--of", "high-water", "taken.bin")


def relay(environment: Environment, start: Start) -> None:
    service = start(environment, "relay", "serve", "--port", "0", "--diagnostics", "127.0.0.1:0")
    url = service.wait_for("relay http", patience=60).split()[1]
    monitor_url = service.wait_for("diagnostics http").split()[1]
    service.wait_for("upstream http", patience=60)
    assert read(f"{url}/stream?prompt=hello").endswith(b"data: [DONE]\n\n")
    assert b"<html" in read(f"{url}/", accept="text/html")
    assert fetched(monitor_url)["workers"]
    assert service.end(patience=60) == 0


def relay_alone(environment: Environment, start: Start) -> None:
    relay(environment, start)
    refused = start(
        environment, "relay", "serve", "--port", "0", "--no-diagnostics", env={"RELAY_REDIS_URL": "redis://127.0.0.1:1"}
    )
    assert refused.process.wait(60) == 2, refused.output
    assert refused.output.rstrip().endswith("pip install 'highwater-diagnostics[redis]'"), refused.output
    refused = start(
        environment, "relay", "serve", "--port", "0", "--no-diagnostics", "--kafka-bootstrap-servers", "127.0.0.1:1"
    )
    assert refused.process.wait(60) == 2, refused.output
    assert refused.output.rstrip().endswith("pip install 'highwater-diagnostics[kafka]'"), refused.output


def redis(environment: Environment, start: Start) -> None:
    succeeds(environment, "python", "-c", "import redis.asyncio")
    # Of no use without the relay, which says so.
    refused_for_want_of(environment, "relay", "relay", "serve")


def otlp(environment: Environment, start: Start) -> None:
    succeeds(environment, "python", "-c", "import opentelemetry.proto.profiles.v1development.profiles_pb2")
    # What pushes them is the monitor's.
    refused_for_want_of(environment, "monitor", "diagnostics", "run", "--", "true")


def kafka(environment: Environment, start: Start) -> None:
    succeeds(environment, "python", "-c", "import confluent_kafka")
    # Of no use without the relay, which says so.
    refused_for_want_of(environment, "relay", "relay", "serve")


def proof(environment: Environment, start: Start) -> None:
    assert "unbounded_buffer" in succeeds(environment, "diagnostics", "scenarios")
    upstream = start(environment, "relay", "simulate", "--port", "0")
    url = upstream.wait_for("http://", patience=60).split()[-1]
    body = environment.folder / "chat.json"
    body.write_text(
        '{"model": "sim", "stream": true, "messages": [{"role": "user", "content": "hello"}]}', encoding="utf-8"
    )
    succeeds(
        environment,
        "diagnostics",
        "load",
        f"{url}/chat/completions",
        "-c",
        "2",
        "-n",
        "4",
        "--method",
        "POST",
        "--body",
        "chat.json",
    )
    assert upstream.end(patience=60) == 0


def egress(environment: Environment, start: Start) -> None:
    folder = environment.folder / "store/service/host/20261129T131400-000001-tracemalloc"
    folder.mkdir(parents=True)
    (folder / "profile.json").write_bytes(profile())
    facts = {"name": "profile.json", "bytes": len(profile()), "sha256": hashlib.sha256(profile()).hexdigest()}
    manifest = {"schema": "highwater.egress/1", "id": folder.name, "artifacts": [facts]}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    assert folder.name in succeeds(environment, "diagnostics", "fetch", "--list", f"file://{environment.folder}/store")
    succeeds(environment, "diagnostics", "fetch", f"file://{folder}", "-o", "fetched")
    assert "append" in succeeds(environment, "diagnostics", "top", f"fetched/{folder.name}/profile.json")
    assert "append" in succeeds(environment, "diagnostics", "top", f"file://{folder}")


def all_of_it(environment: Environment, start: Start) -> None:
    for check in (monitor, memray, relay, proof, egress):
        check(environment, start)


CHECKS: dict[str, Check] = {
    "": base, "monitor": monitor, "memray": memray, "relay": relay_alone, "redis": redis, "otlp": otlp, "proof": proof,
    "egress": egress, "kafka": kafka, "all": all_of_it,
}  # fmt: skip


def until(true: Callable[[], bool], patience: float = 60) -> None:
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"not within {patience} s"
        time.sleep(0.1)


def read(url: str, accept: str = "application/json") -> bytes:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as response:
        body: bytes = response.read()
    return body


def fetched(url: str) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(read(url))
    return answer


@pytest.mark.install
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("extra", CHECKS, ids=lambda extra: extra or "base")
@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: f"python{version}")
def test_the_wheel_with_an_extra_in_an_empty_environment(
    wheel: Path, start: Start, tmp_path: Path, version: str, extra: str
) -> None:
    if version not in interpreters():
        pytest.skip(f"no Python {version} is found on PATH or in pyenv that can make environments")
    environment = Environment.make(interpreters()[version], tmp_path)
    environment.install(wheel, extra)
    imported = succeeds(environment, "python", "-c", WHERE).split()
    assert [path for path in imported if not path.startswith(str(environment.prefix))] == []
    CHECKS[extra](environment, start)

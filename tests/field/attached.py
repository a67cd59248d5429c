"""A service that leaks and knows nothing of us: attached to under load, it must name the leak without a command.

    python -m tests.field.attached [--unread]

LiteLLM's proxy, with a callback of its own that keeps what it has seen (apps/keeping/), under four clients and some open
streams. Told are the seconds from `diagnostics attach` until the open streams are shown, until the first alarm, until the
verdict names the list that keeps the texts, and until it does so with high confidence. Ends with 1 where it does not come to
that, or where the proxy is not as before once the agent has been taken out. `--unread`: the clients of the open streams do not
read. The proxy then keeps the chunks of these streams itself (`served_chunks`), which is eight tenths of the growth, and the
list one: so that is what must be named, and the list must not.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..services.environments import environment
from ..services.exchange import ask, load, monitor, streams, wait_until_ready
from ..services.running import Running, beside, running
from ..services.service import Request
from .table import APPS, Service, read

SECONDS = 420.0
OPEN = 5
# A stream that takes its time: one event a second.
SLOW = Request(
    path="/v1/chat/completions",
    method="POST",
    body={"model": "sim:pace=1", "stream": True, "messages": [{"role": "user", "content": "Hi"}]},
)
CULPRIT, OF_UNREAD = "keeping.Keeping.seen", "local 'served_chunks'"
_POLL_SECONDS = 1.0


@dataclass
class Told:
    """Seconds since the attach; None where it did not come to that."""

    streams: float | None = None
    alarm: float | None = None
    culprit: float | None = None
    high: float | None = None
    confidence: str = ""
    says: str = ""


def main() -> int:
    service = _keeping(read()["litellm"])
    installed = environment(service.name, service.requirements, sys.executable)
    with tempfile.TemporaryDirectory(prefix="highwater-attached-") as root, contextlib.ExitStack() as stack:
        folder = Path(root)
        upstream = stack.enter_context(beside(service, folder))
        proxy = stack.enter_context(running(service, installed, folder / "proxy", observed=False, upstream=upstream))
        wait_until_ready(proxy)
        assert service.load is not None
        assert service.stream is not None
        came_to = stack.enter_context(load(proxy, service.load, SECONDS))
        if "--unread" in sys.argv[1:]:
            stack.enter_context(streams(proxy, service.stream, OPEN))
        else:
            stack.enter_context(load(proxy, SLOW, SECONDS, clients=OPEN))
        with _attached(proxy, folder) as began:
            told = _watched(proxy, began, OF_UNREAD if "--unread" in sys.argv[1:] else CULPRIT)
        print(f"{OPEN} open streams shown after {_seconds(told.streams)}")
        print(f"an alarm of medium or high confidence after {_seconds(told.alarm)}")
        print(f"the culprit named after {_seconds(told.culprit)}, with high confidence after {_seconds(told.high)}")
        print(f"load average {os.getloadavg()[0]:.1f}; last said ({told.confidence}): {told.says}", flush=True)
        ask(proxy, service.ask)
        is_whole = proxy.process.poll() is None and not came_to.failed
    print(f"{came_to.done} requests answered, {came_to.failed} failed {came_to.error}")
    named = told.culprit if "--unread" in sys.argv[1:] else told.high
    return 0 if is_whole and named is not None and told.streams is not None else 1


def _keeping(service: Service) -> Service:
    """The same service with the callback that keeps."""
    command = tuple(word.replace("{apps}/litellm.yaml", "{apps}/keeping/litellm.yaml") for word in service.command)
    return replace(service, command=command, apps=APPS)


@contextlib.contextmanager
def _attached(proxy: Running, folder: Path) -> Iterator[float]:
    """`diagnostics attach` beside it, from when it says where the monitor is, until it has taken its agent out again."""
    began = time.monotonic()
    words = ["attach", str(proxy.process.pid), "--listen", "127.0.0.1:0", "--dir", str(folder / "diagnostics")]
    log = folder / "attach"
    with open(log, "wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "diagnostics", *words], stdout=output, stderr=output)
    try:
        said = _until(lambda: re.search(r"diagnostics (http://\S+)/debug/memory", log.read_text(encoding="utf-8")))
        proxy.monitor = said[1]
        yield began
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
    if "detached from process" not in log.read_text(encoding="utf-8"):
        raise SystemExit(f"it was not detached: {log.read_text(encoding='utf-8')}")


def _watched(proxy: Running, began: float, culprit: str) -> Told:
    told = Told()
    while told.high is None and time.monotonic() - began < SECONDS:
        passed = time.monotonic() - began
        rows = monitor(proxy, "/debug/memory/streams").json()["streams"]
        shown = [row for row in rows if row["route"] == "/v1/chat/completions" and row["response_started"]]
        if told.streams is None and len(shown) >= OPEN:
            told.streams = passed
        for verdict in monitor(proxy, "/debug/memory/verdict").json()["workers"]:
            told.says, told.confidence = verdict["says"], verdict["confidence"]
            if verdict["alarm"] and verdict["confidence"] != "low":
                told.alarm = told.alarm or passed
            if culprit in verdict["says"]:
                told.culprit = told.culprit or passed
                told.high = told.high or (passed if verdict["confidence"] == "high" else None)
        time.sleep(_POLL_SECONDS)
    return told


def _until(call: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 60
    while not (found := call()):
        if time.monotonic() > deadline:
            raise SystemExit("`diagnostics attach` did not say where its monitor is")
        time.sleep(0.1)
    return found


def _seconds(value: float | None) -> str:
    return "no time: it was not" if value is None else f"{value:.0f} s"


if __name__ == "__main__":
    sys.exit(main())

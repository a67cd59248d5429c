"""What telemetry costs the relay: traces, metrics and logs over OTLP, on against all off; a dead and a slow Collector.

    python tests/bench/bench_telemetry.py [--rounds 8] [--loads paced,burst] [--json FILE]
    python tests/bench/bench_telemetry.py --endpoint dead|slow --minutes 5 [--json FILE]

The first: two relays on one core, `on` and `off`, started once; short rounds alternate between them, and ratios are taken round
by round, their median and range printed. What is compared is CPU time per event, all threads of the relay together: on a core
that is busy, a burst, that is events per second. At most 5 %. `short` has streams of fifty events, the worst case, since
everything is done once a stream; it is shown, not judged.

The second: streams without a pause for so many minutes, towards an endpoint that refuses (`dead`) or takes two seconds to
answer (`slow`), by turns with a relay whose Collector answers; memory is read after every round. It may cost 5 % more CPU at
most. Its queues fill at first, 2,048 spans and as many log records; from the second third to the last it must not grow by more
than 8 MiB over what the other one grows.

Needs Go (Debian: golang-go) to build the traffic.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sidebyside.loads import LOADS as PAGE
from sidebyside.loads import Load
from sidebyside.measure import measure
from sidebyside.peers import CHAT, Serving, relay_command
from sidebyside.processes import RELAY_CORE, ROOT, TRAFFIC_CORE, rss_bytes, started
from sidebyside.traffic import Traffic, traffic

TARGET = 1.05
GROWTH_BYTES = 8 * 2**20
SLOW_SECONDS = 2.0
LOADS = {
    **{name: PAGE[name] for name in ("paced", "burst")},
    "short": Load("32 streams of 50 events, as fast as they are taken", 32, 50, 0.0),
}
# Within a round, not only at its end. Spans and logs are sent when there are some; metrics come every minute by default.
SOON = {"OTEL_BSP_SCHEDULE_DELAY": "1000", "OTEL_BLRP_SCHEDULE_DELAY": "1000", "OTEL_METRIC_EXPORT_INTERVAL": "5000"}


@contextlib.contextmanager
def relay(running: Traffic, endpoint: str | None, folder: Path) -> Iterator[Serving]:
    """A relay without its monitor; `endpoint` is where its telemetry goes, None: nothing is made of it."""
    with tempfile.TemporaryDirectory(dir=folder) as private:
        command, env = relay_command(ROOT, running.upstream_url, endpoint or "", Path(private))
        env |= SOON if endpoint else {"OTEL_SDK_DISABLED": "true", "RELAY_LOG_LEVEL": "error"}
        # Its log goes to a file: a line for each stream.
        logged = ["sh", "-c", 'exec "$0" "$@" 2>log', *command, "--no-diagnostics"]
        with started(logged, RELAY_CORE, env, cwd=Path(private)) as process:
            yield Serving(process, process.line("relay ") + CHAT)


def cost(running: Traffic, rounds: int, names: list[str], folder: Path) -> dict[str, Any]:
    """Ratios on / off, round by round."""
    found: dict[str, list[float]] = {name: [] for name in names}
    with relay(running, running.collector_url, folder) as on, relay(running, None, folder) as off:
        for number in range(rounds):
            for name in names:
                order = [("on", on), ("off", off)][:: -1 if number % 2 else 1]
                seen = {which: measure(peer, LOADS[name], running) for which, peer in order}
                if min(one.delivered for one in seen.values()) < 1:
                    # What was not delivered was cheap.
                    print(f"round {number + 1}: {name} came late or not whole, and does not count", file=sys.stderr)
                    continue
                found[name].append(seen["on"].cpu_us / seen["off"].cpu_us)
                print(f"round {number + 1}: {name} {found[name][-1]:.3f}", file=sys.stderr, flush=True)
    sent = running.spans()
    if not sent.get("relay"):
        raise SystemExit("the collector was sent no spans: nothing was measured")
    if not all(found.values()):
        raise SystemExit(
            f"no round was whole of {', '.join(name for name in found if not found[name])}: try a quieter machine"
        )
    return {"ratios": found, "spans": sent}


def endure(running: Traffic, kind: str, minutes: float, folder: Path) -> dict[str, Any]:
    """Resident memory after each round, and what a stream costs, with a bad endpoint and with a good one."""
    memory: dict[str, list[int]] = {kind: [], "good": []}
    ratios: list[float] = []
    with (
        endpoint(kind) as url,
        relay(running, url, folder) as bad,
        relay(running, running.collector_url, folder) as good,
    ):
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until or len(ratios) < 3:
            seen = {}
            for which, peer in ((kind, bad), ("good", good)):
                seen[which] = measure(peer, LOADS["short"], running)
                memory[which].append(rss_bytes(peer.pid))
            ratios.append(seen[kind].cpu_us / seen["good"].cpu_us)
    return {"memory": memory, "ratios": {kind: ratios}}


@contextlib.contextmanager
def endpoint(kind: str) -> Iterator[str]:
    if kind == "dead":
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))  # and does not listen: a connection is refused
            yield f"http://127.0.0.1:{unused.getsockname()[1]}"
        return

    class Slow(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            time.sleep(SLOW_SECONDS)
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def growth(readings: list[int]) -> float:
    """Bytes from the median of the second third to that of the last."""
    third = max(1, len(readings) // 3)
    return statistics.median(readings[-third:]) - statistics.median(readings[-2 * third : -third])


def report(found: dict[str, Any]) -> int:
    missed = False
    for name, ratios in found["ratios"].items():
        median = statistics.median(ratios)
        title = LOADS[name].title if name in LOADS else f"endpoint {name}, short streams"
        print(f"{title}: {median:.3f} [{min(ratios):.3f} .. {max(ratios):.3f}] of {len(ratios)} rounds (<= {TARGET})")
        # Streams of fifty events are shown and not judged: the cost of a stream is divided by what it carries.
        missed |= name != "short" and median > TARGET
    if "memory" in found:
        bad, good = (growth(readings) for readings in found["memory"].values())
        more = bad - good
        for which, readings in found["memory"].items():
            print(f"{which}: {readings[0] / 2**20:.1f} MiB at first, {readings[-1] / 2**20:.1f} at last")
        print(f"growth over that with a Collector that answers: {more / 2**20:.1f} MiB (<= {GROWTH_BYTES / 2**20:.0f})")
        missed |= more > GROWTH_BYTES
    return int(missed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--loads", default=",".join(LOADS))
    parser.add_argument("--endpoint", choices=("dead", "slow"))
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {TRAFFIC_CORE})
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, traffic(Path(folder)) as running:
        if arguments.endpoint:
            found = endure(running, arguments.endpoint, arguments.minutes, Path(folder))
        else:
            found = cost(running, arguments.rounds, arguments.loads.split(","), Path(folder))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return report(found)


if __name__ == "__main__":
    sys.exit(main())

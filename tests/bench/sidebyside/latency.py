"""How late a relay makes an event, and how late it passes on that a client left: under load, against no relay at all."""

from __future__ import annotations

import json
import time
from typing import Any

from .loads import SHORT, Load
from .measure import measure, scraped
from .peers import Serving
from .processes import TRAFFIC_CORE, started
from .traffic import Traffic

PACE = 20.0
SECONDS = 8.0
PROBES, PROBE_SECONDS = 50, 0.1
LEAVERS = 100


def half_load(serving: Serving, traffic: Traffic) -> dict[str, float]:
    """Milliseconds at the load that keeps the relay's core half busy: of events, and of first events, with and without it.

    The same load and the same probes go to the upstream directly; what is added is the difference of the same quantile.
    """
    cost = measure(serving, SHORT["paced"], traffic).cpu_us / 1e6
    streams = max(10, round(0.5 / cost / PACE))
    load = Load("half load", streams, int(PACE * SECONDS), PACE, opening=2.0)
    with scraped(serving.monitor):
        events, first = _under(load, serving.url, traffic)
    direct_events, direct_first = _under(load, f"{traffic.upstream_url}/chat/completions", traffic)
    found = {"events_per_second": streams * PACE, "delivered": events["events"] / events["expected"]}
    for name, table, direct in (
        ("event", events["latency_ms"], direct_events["latency_ms"]),
        ("first", first["first_event_ms"], direct_first["first_event_ms"]),
    ):
        for quantile in ("p50", "p99"):
            found[f"{name}_{quantile}"] = table[quantile]
            found[f"{name}_added_{quantile}"] = table[quantile] - direct[quantile]
    return found


def _under(load: Load, url: str, traffic: Traffic) -> tuple[dict[str, Any], dict[str, Any]]:
    """The load's own report, and that of probes in its midst."""
    with started(traffic.load_command(url, load), TRAFFIC_CORE) as clients:
        time.sleep(load.opening + 0.5)
        command = [traffic.program, "first", "-url", url, "-count", str(PROBES), "-every", str(PROBE_SECONDS)]
        with started(command, TRAFFIC_CORE) as probes:
            first = json.loads(probes.output())
        return json.loads(clients.output()), first


def leaving(serving: Serving, traffic: Traffic) -> dict[str, float]:
    """Milliseconds from a client's leaving to the close of its upstream, while others stream and come and go."""
    command = [
        traffic.program, "leave", "-url", serving.url, "-upstream", traffic.base, "-streams", str(LEAVERS),
        "-pace", str(PACE), "-seconds", str(SECONDS),
    ]  # fmt: skip
    with scraped(serving.monitor), started(command, TRAFFIC_CORE) as clients:
        found = json.loads(clients.output())
    return {
        "left": found["left"],
        "never_closed": found["never_closed"],
        "problems": sum(found["problems"].values()),
        **{f"close_{name}": found["close_ms"].get(name, float("nan")) for name in ("p50", "p99", "max")},
    }

"""The segment pool of the read-ahead, in the metrics: segments in use while clients are slow, then given back."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

Start = Any  # the fixtures are typed in conftest.py
POOL = re.compile(r'^(buffer_pool_\w+)\{(?:state="(\w+)",)?worker="0"\} (\S+)$', re.MULTILINE)


def test_segments_are_lent_to_slow_streams_and_lent_again(start: Start, eventually: Callable[..., Any]) -> None:
    relay = start("--diagnostics", "127.0.0.1:0", "--stream-budget-bytes", "1048576", "--read-ahead-bytes", "190000")
    monitor = relay.lines[1].split()[1].removesuffix("/debug/memory")

    def pool() -> dict[str, float]:
        with urllib.request.urlopen(f"{monitor}/metrics", timeout=60) as answer:
            found = POOL.findall(answer.read().decode())
        return {state or name.removeprefix("buffer_pool_"): float(value) for name, state, value in found}

    eventually(lambda: set(pool()) == {"used", "free", "hits_total", "misses_total"})
    read = 64 * 1024  # what one read of this budget takes
    segment = read // 2
    for round_number in (1, 2):
        with ExitStack() as opened:
            for _ in range(3):
                slow = opened.enter_context(socket.socket())
                slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                slow.connect(relay.address)
                body = json.dumps({"model": "sim:events=inf,pace=0,first=0,size=2000", "messages": [], "stream": True})
                slow.sendall(
                    f"POST /v1/chat/completions HTTP/1.1\r\nHost: [::1]\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
                )
            # Each holds up to 190,000 bytes, less one read that no longer fits, and begins a segment at each end.
            eventually(lambda: 3 * ((190_000 - read) // segment) <= pool()["used"] <= 3 * (190_000 // segment + 2))
        eventually(lambda: pool()["used"] == 0)
        now = pool()
        assert now["free"] >= 9
        if round_number == 1:
            first = now["misses_total"]
    assert now["misses_total"] <= first + 3  # the second round has lived on what the first gave back
    assert now["hits_total"] >= 9

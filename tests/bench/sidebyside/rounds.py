"""Interleaved rounds: each measures every peer once, in turning order, so that the machine's moods meet all alike."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .loads import Load
from .measure import Measured, measure
from .peers import Serving, peer_named
from .traffic import Traffic

Results = dict[tuple[str, str], list[Measured]]


def run(
    peers: Sequence[str], loads: Mapping[str, Load], rounds: int, traffic: Traffic, folder: Path, *, staying: bool
) -> Results:
    """Results by peer and load. `staying` peers are started once; else each load has a fresh process.

    Fresh: what one load leaves in memory must not count for the next.
    """
    results: Results = {}
    with contextlib.ExitStack() as stack:
        serve: dict[str, Callable[[], AbstractContextManager[Serving]]] = {}
        for peer in peers:
            if staying:
                serve[peer] = _same(stack.enter_context(peer_named(peer)(traffic, folder)))
            else:
                serve[peer] = _new(peer, traffic, folder)
        for number in range(1, rounds + 1):
            for peer in peers if number % 2 else reversed(peers):
                for name, load in loads.items():
                    print(f"round {number} of {rounds}: {peer}, {name}", file=sys.stderr, flush=True)
                    with serve[peer]() as serving:
                        results.setdefault((peer, name), []).append(measure(serving, load, traffic))
        return results


def _same(serving: Serving) -> Callable[[], AbstractContextManager[Serving]]:
    return lambda: contextlib.nullcontext(serving)


def _new(peer: str, traffic: Traffic, folder: Path) -> Callable[[], AbstractContextManager[Serving]]:
    return lambda: peer_named(peer)(traffic, folder)

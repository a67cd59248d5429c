"""Interleaved rounds: each measures every peer once, in turning order, so that the machine's moods meet all alike."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from .cases import Case, Figures
from .measure import settle
from .peers import Serving, peer_named
from .processes import PeerFailedError
from .traffic import Traffic

Results = dict[tuple[str, str], list[Figures]]
# The machine's, as the case began: what the benchmark itself keeps busy is in it.
LOAD_AVERAGE = "load_average"


def run(
    peers: Sequence[str], cases: Mapping[str, Case], rounds: int, traffic: Traffic, folder: Path, *, staying: bool
) -> Results:
    """Figures by peer and case, one a round. `staying` peers are started once; else each case has a fresh process.

    Fresh: what one load leaves in memory must not count for the next.
    """
    results: Results = {}
    failed: set[tuple[str, str]] = set()
    with contextlib.ExitStack() as stack:
        same: dict[str, Serving] = {}
        if staying:
            room = max(case.room for case in cases.values())
            same = {peer: stack.enter_context(_settled(peer, traffic, folder, room)) for peer in peers}
        for number in range(1, rounds + 1):
            for name, case in cases.items():
                for peer in peers if number % 2 else reversed(peers):
                    if not case.concerns(peer) or number > case.most_rounds or (peer, name) in failed:
                        continue
                    print(f"round {number} of {rounds}: {name}, {peer}", file=sys.stderr, flush=True)
                    opened: AbstractContextManager[Serving] = (
                        contextlib.nullcontext(same[peer]) if staying else _settled(peer, traffic, folder, case.room)
                    )
                    try:
                        with opened as serving:
                            load = os.getloadavg()[0]
                            found = {**case.run(serving, traffic), LOAD_AVERAGE: load}
                        results.setdefault((peer, name), []).append(found)
                    except (PeerFailedError, OSError, ValueError) as error:
                        # OSError, ValueError: a process that died while it was looked at, or in the middle of its report.
                        print(f"{peer} is not measured further in {name}: {error!r}", file=sys.stderr)
                        failed.add((peer, name))
    return results


@contextlib.contextmanager
def _settled(peer: str, traffic: Traffic, folder: Path, room: int) -> Iterator[Serving]:
    with peer_named(peer)(traffic, folder, room) as serving:
        settle(serving, traffic)
        yield serving

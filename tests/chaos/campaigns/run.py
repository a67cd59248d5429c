"""Campaigns side by side, each a process, until the time is up; what each mix says is added to the record."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.documents import write

from ..relay import PATIENCE
from ..run import VARIANT_WORDS
from .mixes import MIXES, TROUBLES
from .one import MIX, rounds
from .record import FILE, MARKS, Record, table

__all__ = ["main"]

TROUBLED_MIXES = 25
# Bytes of one line of a campaign: complaints may be long.
LINE_BYTES = 1 << 24


class Campaigns:
    """Which campaign comes next, and what became of those that were run."""

    def __init__(self, record: Record, seconds: float, only: str) -> None:
        self._record = record
        self._until = time.monotonic() + seconds
        self._only = only
        self.failed = 0

    def begin(self) -> Iterator[tuple[str, int, int]]:
        """What, its first number, and the one behind its last: the kind of which least was run, by campaigns."""
        names = self._only.split(",") if self._only else [MIX, *TROUBLES]
        ahead = {name: self._campaigns(name) for name in names}
        coming = {name: next(campaigns) for name, campaigns in ahead.items()}
        while self._left() > 0:
            what = min(names, key=lambda name: coming[name][0] / _size(name))
            yield what, *coming[what]
            coming[what] = next(ahead[what])

    def _campaigns(self, what: str) -> Iterator[tuple[int, int]]:
        done = self._record.done(what)
        for begin in itertools.count(0, _size(what)):
            left = [number for number in range(begin, begin + _size(what)) if number not in done]
            if left:
                yield left[0], begin + _size(what)

    def _left(self) -> float:
        return self._until - time.monotonic()

    async def run(self, campaigns: Iterator[tuple[str, int, int]]) -> None:
        """One after the other."""
        for what, first, end in campaigns:
            command = ["-m", "tests.chaos.campaigns.one", what, str(first), str(end), str(self._left())]
            process = await asyncio.create_subprocess_exec(
                sys.executable, *command, stdout=asyncio.subprocess.PIPE, limit=LINE_BYTES
            )
            assert process.stdout is not None
            finished = False
            try:
                async for line in process.stdout:
                    self._told(json.loads(line))
                finished = True
            finally:
                if not finished:  # one that ends by itself is not told to: its status would be lost
                    with contextlib.suppress(ProcessLookupError):
                        process.terminate()
                await process.wait()
            if process.returncode not in (0, 1):
                self.failed += 1
                print(f"{what} {first} to {end}: the campaign ended with {process.returncode}", flush=True)

    def _told(self, line: dict[str, Any]) -> None:
        self._record.add(line)
        self._record.write()
        for wrong in line["wrong"]:
            self.failed += 1
            print(f"{line['what']} {line.get('number', '')}: {wrong}", flush=True)
            if "number" in line:
                again = f"python -m tests.chaos.campaigns --again {line['what']}:{line['number']}"
                print(f"  again: CHAOS_PATIENCE={PATIENCE:g} {again}", flush=True)


def _size(what: str) -> int:
    """Mixes of one campaign."""
    return MIXES if what == MIX else TROUBLED_MIXES


async def _side_by_side(campaigns: Campaigns, jobs: int) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asyncio.current_task().cancel)  # type: ignore[union-attr]
    begun = campaigns.begin()
    await asyncio.gather(*(campaigns.run(begun) for _ in range(jobs)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.campaigns", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0, help="begin no mix after so long (default 3600)")
    parser.add_argument("--jobs", type=int, default=2, help="campaigns at a time, each with all processes of its own")
    parser.add_argument("--only", default="", help=f"some kinds: {MIX},{','.join(TROUBLES)}")
    parser.add_argument("--again", help="one mix alone, as a complaint names it: mix:17, redis_killed:4")
    parser.add_argument("--record", type=Path, default=FILE)
    parser.add_argument("--write", type=Path, help="put the table of the whole record into this document")
    options = parser.parse_args()
    if options.again:
        return _again(options.again)
    record = Record(options.record)
    campaigns = Campaigns(record, options.seconds, options.only)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_side_by_side(campaigns, options.jobs))
    if options.write and record.entries:
        write(options.write, table(record.entries, VARIANT_WORDS), MARKS)
    return bool(campaigns.failed)


def _again(which: str) -> int:
    what, _, number = which.partition(":")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = False
    for line in rounds(what, range(int(number), int(number) + 1), float("inf")):
        for client, fault, said, count in line.get("seen", ()):
            print(f"{count:3} {client:22} {fault:34} {said}")
        for event, said in line.get("events", ()):
            print(f"{event:22} {said}")
        print(*line["wrong"], sep="\n")
        failed = failed or bool(line["wrong"])
    return failed

"""What a look at a full table of a live heap costs the monitor: CPU time, which does not depend on what else the machine does.

    python tests/bench/bench_heap_read.py [--looks 20] [--depth 30]

The table is as full as one can be: 32,768 blocks, 8,192 stacks. Reading it is `decode`; a look is that, and what
each line of code holds (`Look.of`), for which the names of the stacks are known from the look before. Half of the blocks are
small, the others of any size up to 1 MiB, so that thousands of sizes are different. Exit code 1 where a look takes more
than 20 ms.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

from diagnostics.analysis.heap import table as heap_table
from diagnostics.analysis.lines.snapshot import Blocks, Look, Names

BLOCKS, SITES, NODES, FRAMES = 32_768, 8_192, 32_768, 16_384
TARGET = 20.0
NONE = 0xFFFFFFFF
SMALL, LARGE = 512, 1 << 20


def full(depth: int, chance: random.Random) -> bytes:
    """A full table whose stacks share their outer frames and are `depth` frames deep at most, most of them about that."""
    names, places = bytearray(), []
    for number in range(9_000):
        places.append(len(names))
        text = f"/usr/lib/python3/site-packages/package{number % 400}/module{number}.py".encode()
        names += len(text).to_bytes(2, "little") + text
    frames = b"".join(
        struct.pack("<III", chance.choice(places), chance.choice(places), number % 2_000) for number in range(FRAMES)
    )
    nodes, depths = bytearray(), [0] * NODES
    for at in range(NODES):
        goes_on = at > 0 and depths[at - 1] < depth and (at < 20 or chance.random() < 0.75)
        parent = at - 1 if goes_on else chance.randrange(10) if at else NONE
        depths[at] = 1 if parent == NONE else depths[parent] + 1
        nodes += struct.pack("<II", parent, chance.randrange(FRAMES))
    deepest = sorted(range(NODES), key=lambda at: -depths[at])[: NODES // 2]
    sites = b"".join(
        struct.pack("<IIQQddddII", 5, chance.choice(deepest), 4, 4_000, 2e6, 40.0, 1.0, 1.0, 0, 5) for _ in range(SITES)
    )
    blocks = b"".join(
        struct.pack("<IIQII", 3, chance.randrange(SITES) + 1, _size(number, chance), chance.randrange(100_000), 3)
        for number in range(BLOCKS)
    )
    parts, places, at = (blocks, sites, bytes(nodes), frames, bytes(names)), [], 4096
    used = [len(part) // each for part, each in zip(parts, (24, 64, 8, 12, 1), strict=True)]
    for part, count in zip(parts, used, strict=True):
        places += [at, count]
        at += len(part)
    header = struct.pack(
        "<8sIIQIIQqQ10IQQQQdIIIIII", heap_table.MAGIC, 1, 4096, at, 7, 1, 524_288, 10**18, 77, *places,
        10**18 + 10**13, 40_000, 0, 0, 0.0, *used, 0,
    )  # fmt: skip
    return header.ljust(4096, b"\0") + b"".join(parts)


def _size(number: int, chance: random.Random) -> int:
    if number % 2:
        return chance.randrange(1, SMALL + 1)
    return round(math.exp(chance.uniform(math.log(SMALL), math.log(LARGE))))


def milliseconds(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.thread_time()
    result = work()
    return 1000 * (time.thread_time() - began), result


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--looks", type=int, default=20)
    parser.add_argument("--depth", type=int, default=30)
    arguments = parser.parse_args()
    data = full(arguments.depth, random.Random(1))
    names = Names(lambda _: False)
    reading, by_line, of_stacks = [], [], []
    for look in range(arguments.looks + 1):
        took, table = milliseconds(lambda: heap_table.decode(data))
        lines, _ = milliseconds(lambda read=table: Look.of(Blocks.of(read, names, 10_000.0), 0.0))
        every, stacks = milliseconds(lambda read=table: [site.stack for site in read.sites if site is not None])
        if look:  # the first look also names the stacks
            reading.append(took)
            by_line.append(lines)
            of_stacks.append(every)
    looks = [sum(both) for both in zip(reading, by_line, strict=True)]
    depth = statistics.mean(map(len, stacks))
    print(
        f"{len(data):,} bytes, {BLOCKS:,} blocks, {SITES:,} stacks of {depth:.0f} frames; ms of CPU, {arguments.looks} times\n"
    )
    print("| | median | range |\n|---|---|---|")
    for name, figures in (
        ("reading the table", reading),
        ("what each line holds, stacks known from before", by_line),
        (f"a look: both (target {TARGET:g})", looks),
        ("all stacks, for a profile", of_stacks),
    ):
        print(f"| {name} | {statistics.median(figures):.1f} | {min(figures):.1f} to {max(figures):.1f} |")
    return int(statistics.median(looks) > TARGET)


if __name__ == "__main__":
    sys.exit(main())

"""py-spy's folded stacks, read: which Python functions had the core, with the C below them, and in which system calls."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PYTHON_FRAME = re.compile(r"(.+) \((.+\.py):\d+\)$")
SYSTEM_CALLS = frozenset({"read", "write", "writev", "send", "sendto", "recv", "recvfrom"})
SERVING_THREAD = "MainThread"


@dataclass
class Profile:
    """Samples by function. `own` counts where a function was innermost, `within` wherever it was on the stack."""

    samples: int = 0
    own: Counter[str] = field(default_factory=Counter)
    within: Counter[str] = field(default_factory=Counter)

    @classmethod
    def read(cls, folded: Path) -> Profile:
        profile = cls()
        for line in folded.read_text(encoding="utf-8").splitlines():
            stack, _, count = line.rpartition(" ")
            frames = stack.split(";")
            if SERVING_THREAD not in frames[0] or "epoll" in frames[-1]:
                continue
            profile._add(frames, int(count))
        return profile

    def _add(self, frames: list[str], count: int) -> None:
        functions = [f"{match[1]} ({match[2]})" for frame in frames if (match := PYTHON_FRAME.match(frame))]
        if not functions:
            return
        self.samples += count
        call = frames[-1].split(" ")[0]
        self.own[f"{call}() in {functions[-1]}" if call in SYSTEM_CALLS else functions[-1]] += count
        for function in set(functions):
            self.within[function] += count

    def table(self, cost: float, rows: int = 20) -> str:
        """`cost` is microseconds of CPU per event; each function has its share of it."""
        lines = []
        for title, counts in (("self, with the C code below it", self.own), ("with all that it calls", self.within)):
            lines += [f"\n{'share':>7} {'us/event':>9}  {title}"]
            for function, count in counts.most_common(rows):
                share = count / self.samples
                lines.append(f"{share:7.1%} {share * cost:9.2f}  {function}")
        return "\n".join(lines)


def flame_graph(folded: Path) -> Path:
    """The same stacks as a flame graph, by the project's own renderer."""
    page = folded.with_suffix(".html")
    subprocess.run([sys.executable, "-m", "diagnostics", "flamegraph", str(folded), "-o", str(page)], check=True)
    return page

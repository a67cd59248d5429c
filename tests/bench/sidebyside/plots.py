"""Bar charts as SVG, without a library: a bar a peer, a whisker from the lowest to the highest round.

A plotting library would bring a hundred times the bytes of what is drawn here.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape
from pathlib import Path

from .peers import TITLES
from .report import figures
from .rounds import Results

# file, title, case, figure, digits
PLOTS = (
    ("paced", "CPU per event, 100 streams at 20 events/s (microseconds, less is better)", "paced", "cpu_us", 0),
    ("thousand", "CPU per event, 1,000 streams at 20 events/s (microseconds, less is better)", "thousand", "cpu_us", 0),
    ("burst", "events per second, 32 streams in bursts (more is better)", "burst", "events_per_second", 0),
    ("memory", "resident memory per open idle stream (KiB, less is better)", "idle_1000", "rss_kib", 1),
)
LEFT, BARS, RIGHT, ROW, TOP = 350, 420, 90, 26, 40
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#24292f}.bar{fill:#9aa4b1}.own{fill:#1f6feb}.whisker{stroke:#24292f}"
    "@media(prefers-color-scheme:dark){text{fill:#e6edf3}.bar{fill:#6e7681}.whisker{stroke:#e6edf3}}"
)


def write_plots(results: Results, peers: Sequence[str], folder: Path, prefix: str = "") -> list[Path]:
    """One file for each plot that there are figures for."""
    written = []
    for name, title, case, figure, digits in PLOTS:
        rows = [(TITLES.get(peer, peer), figures(results, peer, case, figure)) for peer in peers]
        rows = [(label, values) for label, values in rows if values]
        if rows:
            written.append(folder / f"{prefix}{name}.svg")
            written[-1].write_text(bars(title, rows, digits), encoding="utf-8")
    return written


def bars(title: str, rows: Sequence[tuple[str, Sequence[float]]], digits: int) -> str:
    """`rows` are labels and the values of the rounds; bars are medians, from zero."""
    scale = BARS / max(max(values) for _, values in rows)
    height = TOP + ROW * len(rows) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + BARS + RIGHT} {height}" role="img">',
        f"<title>{escape(title)}</title><style>{STYLE}</style>",
        f'<text x="8" y="22" font-weight="600">{escape(title)}</text>',
    ]
    for place, (label, values) in enumerate(rows):
        y, median = TOP + ROW * place, statistics.median(values)
        low, high = LEFT + min(values) * scale, LEFT + max(values) * scale
        own = "own" if label.startswith("**") else "bar"
        parts += [
            f'<text x="{LEFT - 8}" y="{y + 15}" text-anchor="end">{escape(label.strip("*"))}</text>',
            f'<rect class="{own}" x="{LEFT}" y="{y + 2}" width="{median * scale:.1f}" height="{ROW - 8}"/>',
            f'<line class="whisker" x1="{low:.1f}" x2="{high:.1f}" y1="{y + ROW / 2 - 2}" y2="{y + ROW / 2 - 2}"/>',
            f'<text x="{high + 6:.1f}" y="{y + 15}">{median:,.{digits}f}</text>',
        ]
    return "\n".join([*parts, "</svg>", ""])

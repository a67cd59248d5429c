"""A flame graph as one self-contained HTML file: no network, no fonts, no libraries.

The root is at the top, a caller above its callees, widths are values of the sample type. With a second profile, or one that
is a difference, colour shows growth (red) and shrinking (blue), and a frame is as wide as the larger of its two values, so
that a frame that is gone can still be seen.

The tree is made here and not in the browser: cut where a frame is too small to see, and written as flat lists in depth-first
order. Names in a profile are untrusted: they reach the page only as JSON in a data block, or through `html.escape`, and the
page's Content-Security-Policy allows its one script only, by its hash.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, NamedTuple

from ...errors import UsageError
from ..algebra import is_difference
from ..profile import Frame, Profile
from ..units import format_percent, format_value
from ..views import top
from .text import heading, location

__all__ = ["MIN_SHARE", "render", "sources", "tree"]

# A frame narrower than this share of the root is left out: a quarter of a pixel on a screen 1,250 pixels wide, and at
# most 5,000 frames side by side, however many samples there are.
MIN_SHARE = 0.0002
# Only runaway recursion is deeper than this.
MAX_DEPTH = 512
TABLE_ROWS = 30


class _Leaf(NamedTuple):
    """A stack with its values before and after, and the width that it adds to each of its frames."""

    stack: tuple[Frame, ...]
    before: int
    after: int
    width: int


def render(profile: Profile, *, before: Profile | None = None, value: int = 0, title: str = "") -> bytes:
    """The page, in UTF-8. The same profiles always give the same bytes.

    before   an earlier profile: the page then shows the difference
    value    index of the sample type
    Raises UsageError where their sample types differ.
    """
    if before is not None and before.sample_types != profile.sample_types:
        raise UsageError("the two profiles have different sample types", remedy="choose captures of one kind")
    graph = tree(profile, before, value)
    notes = dict.fromkeys((*(before.not_covered if before is not None else ()), *profile.not_covered))
    title = title or f"{profile.kind}: {profile.sample_types[value].name}"
    script, style = _asset("flamegraph.js"), _asset("flamegraph.css")
    page = _PAGE.format(
        title=html.escape(_clean(title)),
        policy=f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'",
        style=style,
        heading=html.escape(heading(profile, value)),
        before=f"<p>before: {html.escape(heading(before, value))}</p>" if before is not None else "",
        notes="".join(f"<li>{html.escape(_clean(note))}</li>" for note in notes) or "<li>nothing known</li>",
        table="".join(_table(profile, value)),
        data=_json(graph),
        script=script,
    )
    return page.encode("utf-8", "backslashreplace")


def sources() -> tuple[str, str]:
    """The script and the style as Content-Security-Policy sources, for a page that embeds this one in a frame."""
    return _hash(_asset("flamegraph.js")), _hash(_asset("flamegraph.css"))


def tree(profile: Profile, before: Profile | None = None, value: int = 0) -> dict[str, Any]:
    """The drawn tree, as lists of equal length in depth-first order, parents first:

    parent   index of the caller, -1 for the root
    frame    index into `frames`, rows of [function, file, line]; the root's is -1
    width    the sum over its leaves of the larger of the values before and after
    after    the value of the frame and all below it; `before` likewise, only where `differential`
    """
    leaves = _leaves(profile, before, value)
    differential = before is not None or is_difference(profile, value)
    return {
        **_flatten(leaves, differential),
        "differential": differential,
        "sides": before is not None,
        "unit": profile.sample_types[value].unit,
        "name": profile.sample_types[value].name,
    }


def _leaves(profile: Profile, before: Profile | None, value: int) -> list[_Leaf]:
    sides: dict[tuple[Frame, ...], list[int]] = {}
    for sample in profile.samples:
        amount = sample.values[value]
        row = sides.setdefault(sample.stack, [0, 0])
        if amount >= 0:
            row[1] += amount
        else:  # a difference has only the change: a negative value was there before
            row[0] -= amount
    for sample in before.samples if before is not None else ():
        sides.setdefault(sample.stack, [0, 0])[0] += sample.values[value]
    return [_Leaf(stack, old, new, max(old, new)) for stack, (old, new) in sides.items() if old or new]


def _flatten(leaves: list[_Leaf], differential: bool) -> dict[str, Any]:
    """Split the leaves frame by frame from the root down; a frame too narrow to draw is never split."""
    frames: dict[Frame, int] = {}
    columns: dict[str, list[int]] = {name: [] for name in ("parent", "frame", "width", "after", "before")}
    hidden = 0
    least = sum(leaf.width for leaf in leaves) * MIN_SHARE
    todo: list[tuple[int, int, int, list[_Leaf]]] = [(-1, -1, 0, leaves)]
    while todo:
        parent, frame, depth, below = todo.pop()
        number = len(columns["parent"])
        columns["parent"].append(parent)
        columns["frame"].append(frame)
        columns["width"].append(sum(leaf.width for leaf in below))
        columns["after"].append(sum(leaf.after for leaf in below))
        columns["before"].append(sum(leaf.before for leaf in below))
        children = []
        for child, group in _split(below, depth).items():
            if sum(leaf.width for leaf in group) > least:
                children.append((child, group))
            else:
                hidden += 1
        children.sort(key=lambda item: item[0], reverse=True)  # by name: two graphs are then easier to compare
        todo.extend((number, frames.setdefault(child, len(frames)), depth + 1, group) for child, group in children)
    if not differential:
        columns["before"] = []
    rows = [[_clean(frame.function), _clean(frame.file), frame.line] for frame in frames]
    return {"frames": rows, **columns, "hidden": hidden}


def _split(leaves: list[_Leaf], depth: int) -> dict[Frame, list[_Leaf]]:
    """The leaves by their frame at this depth, counted from the root; those that end above it are left out."""
    groups: dict[Frame, list[_Leaf]] = {}
    if depth < MAX_DEPTH:
        for leaf in leaves:
            if depth < len(leaf.stack):
                groups.setdefault(leaf.stack[-1 - depth], []).append(leaf)
    return groups


def _table(profile: Profile, value: int) -> Iterator[str]:
    """The largest functions as an HTML table, for screen readers and browsers without scripts."""
    largest = top(profile, value)
    unit = largest.value_type.unit
    for row in largest.rows[:TABLE_ROWS]:
        cells = (
            format_value(row.flat, unit),
            format_percent(row.flat, largest.whole),
            format_value(row.cumulative, unit),
            format_percent(row.cumulative, largest.whole),
        )
        numbers = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        yield f'<tr>{numbers}<th scope="row">{html.escape(location(row.frame))}</th></tr>'


@functools.cache
def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    """A Content-Security-Policy source: https://www.w3.org/TR/CSP3/#grammardef-hash-source."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _clean(text: str) -> str:
    """`text` with lone surrogates, which UTF-8 cannot encode, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _json(data: dict[str, Any]) -> str:
    """JSON without `<`, `>` and `&`, so that no name can end the script element around it."""
    return (
        json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{heading}</p>
{before}
</header>
<main>
<div class="tools" id="tools" hidden>
<label>Search <input id="search" type="search" placeholder="function or file ( / )" autocomplete="off"
 spellcheck="false"></label>
<output id="found" for="search"></output>
<span class="legend" id="legend"></span>
<button id="reset" type="button" disabled>Reset zoom</button>
</div>
<div id="graph"></div>
<p id="details" role="status" aria-live="polite">&nbsp;</p>
<noscript><p>Without scripts only the table below is shown.</p></noscript>
</main>
<details open><summary>What this profile does not cover</summary><ul>{notes}</ul></details>
<details id="table"><summary>The largest functions as a table</summary>
<table><thead><tr><th scope="col">flat</th><th scope="col">flat%</th><th scope="col">cum</th><th scope="col">cum%</th>\
<th scope="col">function</th></tr></thead><tbody>{table}</tbody></table></details>
<p class="help">Click or Enter: zoom. Arrow keys: walk. Escape: reset. Colour: see the legend; shades only tell
neighbours apart. <span id="hidden"></span></p>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""

"""A flame graph as one HTML file that needs nothing else: no network, no fonts, no libraries.

The root is at the top, a caller above what it calls, widths are bytes (or whatever the sample type counts). With a second
profile, or one that is a difference, colour says what grew (red) and shrank (blue), and a frame is as wide as the larger
of its two sides, so that what vanished can still be seen.

What is drawn is decided here and not in the browser: the tree, cut where a frame is too small to see, written as flat
lists in depth-first order. Names in a profile come from outside: they reach the page only as JSON in a data block, or
through `html.escape`, and the page's own policy lets nothing run but its one script, named by its hash.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import html
import json
from collections.abc import Iterator
from importlib import resources
from typing import Any

from ...errors import UsageError
from ..profile import Frame, Profile
from ..units import format_percent, format_value
from ..views import top
from .text import heading, location

__all__ = ["MIN_SHARE", "render", "tree"]

# A frame narrower than this share of the whole is left out: a quarter of a pixel on a screen 1,250 pixels wide, and at
# most 5,000 frames side by side, however many samples there are.
MIN_SHARE = 0.0002
# Deeper than this a graph is taller than anyone scrolls; only runaway recursion gets there.
MAX_DEPTH = 512
TABLE_ROWS = 30


class _Node:
    """A frame in its place: what it holds itself before and after, what all below it hold, and how wide that is."""

    __slots__ = ("after", "before", "children", "self_after", "self_before", "width")

    def __init__(self) -> None:
        self.children: dict[Frame, _Node] = {}
        self.self_before = self.self_after = 0
        self.before = self.after = self.width = 0


def render(profile: Profile, *, before: Profile | None = None, value: int = 0, title: str = "") -> bytes:
    """The page, in UTF-8. The same profiles always give the same bytes.

    With `before`, `profile` is what came after it. Raises UsageError where their sample types differ.
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


def tree(profile: Profile, before: Profile | None = None, value: int = 0) -> dict[str, Any]:
    """What the page draws, as lists of one length in depth-first order, parents first:

    parent   index of the caller, -1 for the root
    frame    index into `frames`, rows of [function, file, line]; the root's is -1
    width    before and after: the larger of the two for each leaf, added up
    after    what the frame and all below it hold; `before` likewise, only where `differential`
    """
    root = _Node()
    differential = before is not None or any(sample.values[value] < 0 for sample in profile.samples)
    for sample in profile.samples:
        amount = sample.values[value]
        node = _descend(root, sample.stack)
        if amount >= 0:
            node.self_after += amount
        else:  # of a difference only the change is known: what went away was there before
            node.self_before -= amount
    for sample in before.samples if before is not None else ():
        _descend(root, sample.stack).self_before += sample.values[value]
    _add_up(root)
    return {
        **_flatten(root, differential),
        "differential": differential,
        "sides": before is not None,
        "unit": profile.sample_types[value].unit,
        "name": profile.sample_types[value].name,
    }


def _descend(root: _Node, stack: tuple[Frame, ...]) -> _Node:
    node = root
    for frame in reversed(stack[-MAX_DEPTH:]):
        child = node.children.get(frame)
        if child is None:
            child = node.children[frame] = _Node()
        node = child
    return node


def _add_up(root: _Node) -> None:
    order = [root]
    for node in order:  # grows while it is read: parents before children
        order.extend(node.children.values())
    for node in reversed(order):
        children = node.children.values()
        node.before = node.self_before + sum(child.before for child in children)
        node.after = node.self_after + sum(child.after for child in children)
        node.width = max(node.self_before, node.self_after) + sum(child.width for child in children)


def _flatten(root: _Node, differential: bool) -> dict[str, Any]:
    frames: dict[Frame, int] = {}
    parents, indexes, widths, befores, afters = ([] for _ in range(5))  # type: tuple[list[int], ...]
    hidden = 0
    least = root.width * MIN_SHARE
    todo: list[tuple[int, Frame | None, _Node]] = [(-1, None, root)]
    while todo:
        parent, frame, node = todo.pop()
        number = len(parents)
        parents.append(parent)
        indexes.append(-1 if frame is None else frames.setdefault(frame, len(frames)))
        widths.append(node.width)
        befores.append(node.before)
        afters.append(node.after)
        shown = [(child_frame, child) for child_frame, child in node.children.items() if child.width > least]
        hidden += len(node.children) - len(shown)
        shown.sort(key=lambda item: item[0], reverse=True)  # by name, as two graphs are then easier to compare
        todo.extend((number, child_frame, child) for child_frame, child in shown)
    return {
        "frames": [[_clean(frame.function), _clean(frame.file), frame.line] for frame in frames],
        "parent": parents,
        "frame": indexes,
        "width": widths,
        "after": afters,
        "before": befores if differential else [],
        "hidden": hidden,
    }


def _table(profile: Profile, value: int) -> Iterator[str]:
    """The same in words, for a screen reader or where scripts do not run."""
    found = top(profile, value)
    unit = found.value_type.unit
    for row in found.rows[:TABLE_ROWS]:
        cells = (
            format_value(row.flat, unit),
            format_percent(row.flat, found.whole),
            format_value(row.cumulative, unit),
            format_percent(row.cumulative, found.whole),
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
    """Without lone surrogates, which UTF-8 cannot say."""
    return text.encode("utf-8", "backslashreplace").decode()


def _json(data: dict[str, Any]) -> str:
    """JSON that cannot end the script element it stands in, whatever the names are."""
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
<label>Search <input id="search" type="search" placeholder="function or file ( / )" autocomplete="off" spellcheck="false"></label>
<output id="found" for="search"></output>
<span class="legend" id="legend"></span>
<button id="reset" type="button" disabled>Reset zoom</button>
</div>
<div id="graph"></div>
<p id="details" role="status" aria-live="polite">&nbsp;</p>
<noscript><p>Without scripts only the table below is shown.</p></noscript>
</main>
<details><summary>What this profile does not cover</summary><ul>{notes}</ul></details>
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

"""memray: every allocation in the window, Python's and C's, with its stack.

By default aggregated, with Python's allocators: single objects are recorded instead of 1 MiB arenas, in a file of a few
kilobytes. That format has the blocks that are live at the end and those at the peak; blocks freed within the window
(`temporary`, `allocated`, the statistics) need the full format, which writes megabytes a second. Rendering and reading are
done by processes of their own, with memray's supported commands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

from ....analysis.cost import Method
from ....errors import UsageError
from ...workers.targets import Worker
from ..memray_reader import reader_for
from ..reader import render
from .kind import Kind, Session
from .options import WINDOW_OPTIONS, boolean, capture_id, words
from .profile_json import callers_of, load_json, top_of
from .tables import HELD_COLUMNS, Column, text_of

__all__ = ["KIND", "LOW_COVERAGE_PERCENT"]

_BEGIN_SECONDS = 10.0
# Closing a tracker stalls all threads for 0.1 s per million live blocks, and writes the file.
_FINISH_SECONDS = 60.0

# What memray takes to make one of its pages of a small capture: most of it are its own modules.
_PAGE_BYTES = 96 * 2**20

# Where less of its bytes have a Python stack, a profile may point at the wrong line.
LOW_COVERAGE_PERCENT = 90.0

CAPTURE, PROFILE = "capture.bin", "profile.json"
# Views that only the full format has.
_FULL_ONLY = ("temporary", "allocated")


async def take(session: Session) -> dict[str, Any]:
    options, capture = session.options, session.folder / CAPTURE
    reader = await reader_for(session.worker, check=False)
    await session.worker.ask(
        "memray.begin",
        patience=_BEGIN_SECONDS,
        path=str(capture),
        seconds=options["seconds"],
        aggregated=options["aggregated"],
        python_allocators=options["python_allocators"],
        native=options["native"],
    )
    await session.wait(options["seconds"])
    finished = await session.worker.ask("memray.finish", patience=_FINISH_SECONDS)

    session.enter("rendering")
    profile_path = session.folder / PROFILE
    await reader.profile(capture, options["view"], profile_path)
    missing = [reader.note] if options["render"] and reader.note else []
    if options["render"] and reader.note is None:
        missing = [why async for why in _render(capture, session.folder, options) if why]
    return {
        "seconds": finished["seconds"],
        "ending_seconds": finished["ending_seconds"],
        **_summary(profile_path, options, missing),
    }


async def _render(capture: Path, folder: Path, options: Mapping[str, Any]) -> AsyncIterator[str | None]:
    """Write memray's own pages into the capture's folder: for each why it is missing, None where it is not."""
    for name, command in _pages(options):
        page = folder / name
        made = ("--force", "--output", str(page), str(capture))
        yield await render(page, "-m", "memray", *command, *made, needs_bytes=_PAGE_BYTES)
    if not options["aggregated"]:
        page = folder / "stats.txt"
        yield await render(page, "-m", "memray", "stats", str(capture), needs_bytes=_PAGE_BYTES, output=page)


def _summary(profile_path: Path, options: Mapping[str, Any], missing: list[str]) -> dict[str, Any]:
    profile = load_json(profile_path)
    coverage = profile["meta"].get("coverage_percent")
    low = coverage is not None and coverage < LOW_COVERAGE_PERCENT
    notes = [*profile["not_covered"], *missing]
    if low:
        notes.insert(0, f"only {coverage:g} % of the bytes have a Python stack: what the rest belongs to is not known")
    return {
        "view": options["view"],
        "coverage_percent": coverage,
        "coverage_low": low,
        "peak_bytes": profile["meta"].get("peak_bytes"),
        "sample_types": profile["sample_types"],
        "total_bytes": sum(values[0] for _stack, values, _labels in profile["samples"]),
        "total_count": sum(values[1] for _stack, values, _labels in profile["samples"]),
        "top": callers_of(profile) if options["native"] else top_of(profile),
        "not_covered": notes,
    }


def _pages(options: Mapping[str, Any]) -> Iterator[tuple[str, list[str]]]:
    """(artifact, arguments of memray) for each page that can be made from this capture's format."""
    flamegraph = ["flamegraph", "--no-web", "--confidential-files", "none" if options["source_lines"] else "all"]
    yield "flamegraph.html", [*flamegraph, "--leaks"]
    yield "flamegraph-high-water.html", flamegraph
    if not options["aggregated"]:
        yield "flamegraph-temporary.html", [*flamegraph, "--temporary-allocations"]
    yield "table.html", ["table", "--no-web", "--leaks"]


def _method(options: Mapping[str, Any]) -> Method:
    return Method(
        tracer="memray",
        seconds=options["seconds"],
        aggregated=options["aggregated"],
        python_allocators=options["python_allocators"],
        native=options["native"],
        forks=False,
        renders=options["render"],
    )


def _agree(options: Mapping[str, Any]) -> None:
    if options["aggregated"] and options["view"] in _FULL_ONLY:
        raise UsageError(
            f"view is {options['view']!r}, which the aggregated format cannot tell: it keeps what was left and the peak",
            remedy='add "aggregated": false (several megabytes a second), or choose view leaked or high-water',
        )


async def _ready(worker: Worker) -> None:
    await reader_for(worker, check=True)


KIND = Kind(
    name="memray",
    options={
        **WINDOW_OPTIONS,
        "view": ("leaked", words("leaked", "high-water", *_FULL_ONLY)),
        "aggregated": (True, boolean),
        "python_allocators": (True, boolean),
        "native": (False, boolean),
        "source_lines": (False, boolean),
        "diff": (None, capture_id),
        "render": (True, boolean),
    },
    take=take,
    ready=_ready,
    method=_method,
    agree=_agree,
    columns=(*HELD_COLUMNS, Column("in", text_of("native"), right=False)),
)

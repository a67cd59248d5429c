"""memray: every allocation of the window, Python's and C's, with its stack.

Aggregated with Python's allocators by default: it sees single chunks instead of 1 MiB arenas, and leaves a file of a
hundred kilobytes. Rendering and reading are done by processes of their own.
"""

from __future__ import annotations

from typing import Any

from .base import DEFAULT_SECONDS, Kind, Session, boolean, load_json, run_reader, seconds, top_of

__all__ = ["KIND"]

_BEGIN_SECONDS = 10.0
# Leaving a tracker stalls all threads for 0.1 s per million live blocks, and writes the file.
_FINISH_SECONDS = 60.0

CAPTURE, FLAMEGRAPH, PROFILE = "capture.bin", "flamegraph.html", "profile.json"


async def take(session: Session) -> dict[str, Any]:
    options, capture = session.options, session.folder / CAPTURE
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
    await run_reader("-m", "diagnostics.monitor.memray_file", str(capture), "--of", "leaked", output=profile_path)
    await run_reader(
        "-m", "memray", "flamegraph", "--leaks", "--no-web", "--force",
        "--confidential-files", "none" if options["source_lines"] else "all",
        "--output", str(session.folder / FLAMEGRAPH), str(capture),
    )  # fmt: skip
    profile = load_json(profile_path)
    return {
        "seconds": finished["seconds"],
        "ending_seconds": finished["ending_seconds"],
        "coverage_percent": profile["meta"].get("coverage_percent"),
        "peak_bytes": profile["meta"].get("peak_bytes"),
        "total_bytes": sum(values[0] for _stack, values, _labels in profile["samples"]),
        "total_count": sum(values[1] for _stack, values, _labels in profile["samples"]),
        "top": top_of(profile),
        "not_covered": profile["not_covered"],
    }


KIND = Kind(
    name="memray",
    options={
        "seconds": (DEFAULT_SECONDS, seconds),
        "aggregated": (True, boolean),
        "python_allocators": (True, boolean),
        "native": (False, boolean),
        "source_lines": (False, boolean),
    },
    take=take,
)

"""Reads a memray capture file and writes it as a Profile, in a process of its own.

    python -m diagnostics.monitor.captures.memray_file FILE --of leaked|high-water|temporary|allocated > profile.json
    python -m diagnostics.monitor.captures.memray_file --version

The law of this file: memray's reader never runs inside a server. It holds the GIL for seconds on a large file, and it is
native code that a damaged file may crash; so it gets a process of its own. That may be the service's own interpreter, whose
memray reads the format that it has written (see memray_reader), so nothing here needs another package. Exit code 0: Profile
JSON on stdout. Exit code 2: the error, in one line, on stderr.

`leaked` are blocks allocated in the window and live at its end; `high-water` are blocks live at the window's peak.
`temporary` (freed right after) and `allocated` (all, freed or not) are in the full format only. Only memray's public names
are used. The command line that memray records is left out, since people pass keys on command lines.
"""

from __future__ import annotations

import argparse
import json
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ...analysis.profile import Frame, Profile, Sample, ValueType
from ...errors import DiagnosticsError, UsageError

if TYPE_CHECKING:
    from memray import AllocationRecord, FileReader, Metadata

__all__ = ["NO_STACK", "main", "read"]

# The stack of allocations without a Python frame: by a thread that runs no Python, or before memray saw the thread.
NO_STACK = Frame("(no Python stack)", "", 0)

_VIEWS = {
    "leaked": (ValueType("inuse_space", "bytes"), ValueType("inuse_objects", "count")),
    "high-water": (ValueType("peak_space", "bytes"), ValueType("peak_objects", "count")),
    "temporary": (ValueType("alloc_space", "bytes"), ValueType("alloc_objects", "count")),
    "allocated": (ValueType("alloc_space", "bytes"), ValueType("alloc_objects", "count")),
}

_MEMRAY_MAGIC = b"memray\0"
_LZ4_MAGIC = b"\x04\x22\x4d\x18"


def read(path: Path, of: str) -> Profile:
    """The Profile of the memray capture at `path`. Raises UsageError where the file is no capture, or truncated."""
    try:
        import memray
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{path} needs memray to be read", remedy="pip install 'highwater-diagnostics[memray]'"
        ) from error
    closed = _check_complete(path)
    try:
        with closing(memray.FileReader(path)) as reader:
            return _profile(reader, path, of, closed)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read as a memray capture: {error}",
            remedy="it may come from another memray version, or from a capture that was killed: take it again",
        ) from error


def _profile(reader: FileReader, path: Path, of: str, closed: bool) -> Profile:
    facts = reader.metadata
    records = _records(reader, path, of)
    gathered = _Gathered(facts.has_native_traces)
    gathered.add(records)
    end = facts.end_time if closed else datetime.fromtimestamp(path.stat().st_mtime, tz=facts.start_time.tzinfo)
    return Profile(
        kind="memray",
        sample_types=_VIEWS[of],
        samples=tuple(gathered.samples()),
        time=end.timestamp(),
        duration=max(0.0, (end - facts.start_time).total_seconds()),
        not_covered=tuple(_not_covered(facts, gathered, closed)),
        meta={
            "of": of,
            "coverage_percent": gathered.coverage_percent,
            "peak_bytes": facts.peak_memory,
            "total_allocations": facts.total_allocations,
            "file_format": _file_format(facts),
            "python_allocator": facts.python_allocator,
            "trace_python_allocators": facts.trace_python_allocators,
            "native_traces": facts.has_native_traces,
        },
    )


def _records(reader: FileReader, path: Path, of: str) -> Iterable[AllocationRecord]:
    if of == "leaked":
        return reader.get_leaked_allocation_records()
    if of == "high-water":
        return reader.get_high_watermark_allocation_records()
    if _file_format(reader.metadata) == "aggregated_allocations":
        raise UsageError(
            f"{path} is aggregated: it cannot tell what is {of}", remedy='take the capture with "aggregated": false'
        )
    if of == "temporary":
        return reader.get_temporary_allocation_records(threshold=1)
    return reader.get_allocation_records()


def _file_format(facts: Metadata) -> str | None:
    """The name of the file's format; None before memray 1.12, which does not report it."""
    known = getattr(facts, "file_format", None)
    return None if known is None else str(known.name).lower()


class _Gathered:
    """Records summed by stack and allocator, and the bytes that have a Python stack."""

    def __init__(self, native: bool) -> None:
        self._native = native
        self._sums: dict[tuple[tuple[Frame, ...], str], list[int]] = {}
        self._frames: dict[tuple[str, str, int], Frame] = {}
        self.total_bytes = 0
        self.covered_bytes = 0

    def add(self, records: Iterable[AllocationRecord]) -> None:
        from memray import AllocatorType

        releases = {AllocatorType.FREE, AllocatorType.MUNMAP, AllocatorType.PYMALLOC_FREE}
        for record in records:
            if record.allocator in releases:  # a free: it has no stack
                continue
            stack = self._stack(record)
            sums = self._sums.setdefault((stack, AllocatorType(record.allocator).name.lower()), [0, 0])
            sums[0] += record.size
            sums[1] += record.n_allocations

    def _stack(self, record: AllocationRecord) -> tuple[Frame, ...]:
        python = record.stack_trace()
        self.total_bytes += record.size
        self.covered_bytes += record.size if python else 0
        rows = record.hybrid_stack_trace() if self._native else python
        return tuple(self._frame(row) for row in rows) or (NO_STACK,)

    def _frame(self, row: tuple[str, str, int]) -> Frame:
        frame = self._frames.get(row)
        if frame is None:
            frame = self._frames[row] = Frame(*row)
        return frame

    def samples(self) -> Iterator[Sample]:
        """Most bytes first."""
        for (stack, allocator), sums in sorted(self._sums.items(), key=lambda item: (-item[1][0], item[0])):
            yield Sample(stack, (sums[0], sums[1]), (("allocator", allocator),))

    @property
    def coverage_percent(self) -> float:
        """Per cent of the bytes that have a Python stack; 100 where there are no bytes."""
        return round(100 * self.covered_bytes / self.total_bytes, 2) if self.total_bytes else 100.0


def _not_covered(facts: Metadata, gathered: _Gathered, closed: bool) -> Iterator[str]:
    yield "what was allocated before the window, even if it grew or was freed within it"
    if not facts.trace_python_allocators and facts.python_allocator.startswith("pymalloc"):
        yield (
            "small Python objects (up to 512 bytes) one by one: they show as whole arenas on the line that happened to "
            "need a new one; capture with trace_python_allocators to see them"
        )
    if gathered.coverage_percent < 100:
        missing = gathered.total_bytes - gathered.covered_bytes
        yield f"the Python stack of {missing} of {gathered.total_bytes} bytes"
    if not closed:
        yield (
            "perhaps the end of the window: the capture is not compressed, as it is while it runs, after a kill, or where "
            "that was asked for; this is what was written"
        )


def _check_complete(path: Path) -> bool:
    """Whether memray has certainly closed the file. Raises UsageError where it is not memray's, or truncated.

    memray compresses a capture into one LZ4 frame when it closes it. Its reader takes a truncated frame for a shorter
    capture, and would report a part of the bytes as all of them.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(_MEMRAY_MAGIC))
            if head == _MEMRAY_MAGIC:  # not compressed: still open, its process was killed, or compress_on_exit=False
                return False
            if not head.startswith(_LZ4_MAGIC):
                what = "is empty: its capture was killed before anything was written" if not head else "is not one"
                raise UsageError(f"expected a memray capture, {path} {what}", remedy="take the capture again")
            file.seek(len(_LZ4_MAGIC))
            if not _lz4_frame_ends(file):
                raise UsageError(f"the memray capture {path} is cut off", remedy="copy or download it again")
            return True
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy="check the path and its rights") from error


def _lz4_frame_ends(file: BinaryIO) -> bool:
    """Whether the LZ4 frame, read from behind its magic, has its end mark.

    https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md: a descriptor (flags, block size, [content size],
    [dictionary id], checksum), then blocks of a 4-byte size each, a size of 0 marks the end.
    """
    flags = (file.read(1) or b"\0")[0]
    file.seek(1 + (8 if flags & 0x08 else 0) + (4 if flags & 0x01 else 0) + 1, 1)
    checksum = 4 if flags & 0x10 else 0
    while len(size := file.read(4)) == 4:
        length = struct.unpack("<I", size)[0] & 0x7FFF_FFFF
        if length == 0:
            return True
        file.seek(length + checksum, 1)
    return False


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m diagnostics.monitor.captures.memray_file", description="memray to Profile."
    )
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("--version", action="store_true", help="which memray reads here, and nothing else")
    parser.add_argument("--of", choices=sorted(_VIEWS), default="leaked", help="default: leaked")
    arguments = parser.parse_args(argv)
    if arguments.version:
        from importlib import metadata

        print(metadata.version("memray"))
        return 0
    if arguments.file is None:
        parser.error("name a FILE")
    try:
        document: dict[str, Any] = read(arguments.file, arguments.of).to_json()
    except DiagnosticsError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    json.dump(document, sys.stdout, separators=(",", ":"))
    return 0


if __name__ == "__main__":
    sys.exit(main())

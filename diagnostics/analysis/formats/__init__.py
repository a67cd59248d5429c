"""Writes and reads Profiles. A format is recognised by its content, never by a file's name.

| format | written | read | module |
|---|---|---|---|
| Profile JSON | yes | yes | `native` |
| pprof, with gzip or without | yes | yes | `pprof` |
| folded stacks | yes | yes | `collapsed` |
| flame graph, one HTML file | yes | no | `flamegraph` |
| text tables | yes | no | `text` |
| live heap's table | no | yes | `..heap` |
| memray capture | no | by `monitor.captures.memray_file`, which needs memray | |
"""

from __future__ import annotations

from typing import Literal

from ...errors import UsageError
from .. import heap
from ..profile import Profile
from . import collapsed, native, pprof

__all__ = ["Format", "decode", "recognise"]

Format = Literal["json", "pprof", "folded", "heap", "memray"]

# The magic of memray's format, and of the LZ4 frame into which memray compresses a file when it closes it.
_MEMRAY = (b"memray\0", b"\x04\x22\x4d\x18")


def recognise(data: bytes) -> Format | None:
    """The format of these bytes (the first few hundred suffice); None for an unknown one."""
    if data.startswith(_MEMRAY):
        return "memray"
    if data.startswith(heap.MAGIC):
        return "heap"
    if data.startswith(pprof.GZIP_MAGIC):
        return "pprof"
    # A function may be named `{`: a whole first line that is a folded stack is one.
    if data.lstrip()[:1] == b"{" and not (b"\n" in data and collapsed.looks_folded(data)):
        return "json"
    # pprof begins with field 1 (sample_type) and its length: a line break and a control character, as no text does.
    if data[:1] == b"\n" and data[1:2] < b"\x20" and data[1:2] not in (b"", b"\n", b"\r", b"\t"):
        return "pprof"
    return "folded" if collapsed.looks_folded(data) else None


def decode(data: bytes) -> Profile:
    """Read a Profile in any of the formats. Raises UsageError for an unknown format or damaged data."""
    format_name = recognise(data)
    if format_name == "pprof":
        data = pprof.inflate(data)
        # Any format may be gzipped; unrecognised bytes are taken for pprof, whose error then says what is wrong.
        format_name = recognise(data) or "pprof"
    if format_name == "json":
        return native.decode(data)
    if format_name == "folded":
        return collapsed.decode(data)
    if format_name == "pprof":
        return pprof.decode(data)
    if format_name == "heap":
        return heap.profile(heap.decode(data))
    if format_name == "memray":
        raise UsageError(
            "a memray capture",
            remedy="convert it with `diagnostics convert`, which needs highwater-diagnostics[memray]",
        )
    what = f"begins with {data[:16]!r}" if data else "is empty"
    raise UsageError(
        f"no known format: it {what}",
        remedy="expected Profile JSON, pprof, folded stacks, a live heap's table or a memray capture",
    )

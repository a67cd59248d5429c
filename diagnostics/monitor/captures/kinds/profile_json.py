"""Profile JSON as files, and its largest lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

__all__ = ["callers_of", "load_json", "profile_of", "top_of", "write_json"]

_PROFILE_KEYS = ("schema", "kind", "sample_types", "frames", "samples", "time", "duration", "not_covered", "meta")


# A file that came with Python or was installed, or no file; of the agent too, which is no part of the service.
_INSTALLED = re.compile(r"/(?:site-packages|dist-packages|lib/python3\.\d+)/|/diagnostics/agent/|^<|^$")


def top_of(profile: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The `count` leaf lines with the largest values, from Profile JSON; see `_rows`."""
    stacks = ((stack, 0, values) for stack, values, _labels in profile["samples"] if stack)
    return _rows(profile["frames"], ((tuple(stack[:1]), stack, at, values, "") for stack, at, values in stacks), count)


def callers_of(profile: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The `count` Python lines with the most bytes, from Profile JSON whose stacks have native frames below.

    Each row is the innermost Python frame, with `native`: the native function (C, Rust, ...) that allocated most of its bytes,
    None where the library has no symbols. Bytes without a Python frame are in rows without a file, by native function.
    """
    return _rows(profile["frames"], _below_python(profile), count, native=True)


_Seen = tuple[tuple[Any, ...], Sequence[int], int, Sequence[int], str]


def _below_python(profile: Mapping[str, Any]) -> Iterator[_Seen]:
    frames = profile["frames"]
    for stack, values, _labels in profile["samples"]:
        place = next((at for at, index in enumerate(stack) if _is_python(frames[index])), len(stack))
        native = next((frames[index][0] for index in stack[:place] if _answers(frames[index])), "")
        key = (stack[place],) if place < len(stack) else (native or "(no line of Python)", "", 0)
        yield key, stack, place, values, native


def _rows(frames: Sequence[Any], seen: Iterable[_Seen], count: int, *, native: bool = False) -> list[dict[str, Any]]:
    """The largest rows of what was `seen`: (the row's frame by its number, or itself; stack; the frame's place in it; values;
    function in C). `caller`: where the frame is a library's, the line of the service's own code that most of its bytes came
    from; None where the stacks do not reach one."""
    sums: dict[tuple[Any, ...], list[int]] = {}
    below: dict[tuple[Any, ...], Counter[str]] = {}
    above: dict[tuple[Any, ...], Counter[int]] = {}
    for key, stack, place, values, function in seen:
        held = sums.setdefault(key, [0, 0])
        held[0] += values[0]
        held[1] += values[1]
        below.setdefault(key, Counter())[function] += values[0]
        own = next((index for index in stack[place:] if _is_own(frames[index])), None)
        if own is not None and own not in stack[place : place + 1]:
            above.setdefault(key, Counter())[own] += values[0]
    rows = []
    for key, (bytes_, number) in sorted(sums.items(), key=lambda item: -item[1][0])[:count]:
        function, file, line = frames[key[0]] if len(key) == 1 else key
        row = {"function": function, "file": file, "line": line, "bytes": bytes_, "count": number}
        if native:
            row["native"] = below[key].most_common(1)[0][0] or None
        own, held_by = above[key].most_common(1)[0] if key in above else (None, 0)
        row["caller"] = (
            dict(zip(("function", "file", "line"), frames[own], strict=True))
            if own is not None and 2 * held_by >= bytes_
            else None
        )
        rows.append(row)
    return rows


# Allocators, the interpreter and frames without a name: they are on the stack of every allocation.
_NO_ANSWER = ("<unknown>", "malloc", "calloc", "realloc", "_Py", "Py", "__", "operator new", "alloc::", "std::")
_OF_THE_INTERPRETER = (
    "Objects/",
    "Python/",
    "Modules/",
    "Include/",
    "./Objects/",
    "./Python/",
    "./Modules/",
    "./Include/",
)


def _answers(frame: Any) -> bool:
    """Whether a native frame is of a library, and neither of an allocator nor of the interpreter."""
    return bool(frame[0]) and not (
        str(frame[0]).startswith(_NO_ANSWER) or str(frame[1]).startswith(_OF_THE_INTERPRETER)
    )


def _is_own(frame: Any) -> bool:
    """Whether a frame is the service's own code: Python's, and neither installed nor ours."""
    return _is_python(frame) and not _INSTALLED.search(str(frame[1]))


def _is_python(frame: Any) -> bool:
    """Whether a frame is Python's. The file of a native one is a C source (with debug symbols) or `<unknown>`."""
    file = str(frame[1])
    return file.endswith((".py", ".pyc")) or (file.startswith("<") and file != "<unknown>")


def load_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def profile_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The Profile JSON in an agent's answer, without the answer's further keys."""
    return {key: reply[key] for key in _PROFILE_KEYS}

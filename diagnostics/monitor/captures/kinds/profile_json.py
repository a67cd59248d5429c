"""Profile JSON as files, and its largest lines."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["callers_of", "load_json", "profile_of", "top_of", "write_json"]

_PROFILE_KEYS = ("schema", "kind", "sample_types", "frames", "samples", "time", "duration", "not_covered", "meta")


def top_of(profile: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The `count` leaf lines with the largest values, from Profile JSON."""
    sums: dict[int, list[int]] = {}
    for stack, values, _labels in profile["samples"]:
        if stack:
            held = sums.setdefault(stack[0], [0, 0])
            held[0] += values[0]
            held[1] += values[1]
    rows = sorted(sums.items(), key=lambda item: -item[1][0])[:count]
    return [
        {"function": function, "file": file, "line": line, "bytes": held, "count": number}
        for (function, file, line), held, number in (
            (profile["frames"][index], values[0], values[1]) for index, values in rows
        )
    ]


def callers_of(profile: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The `count` Python lines with the most bytes, from Profile JSON whose stacks have native frames below.

    Each row is the innermost Python frame, with `native`: the native function (C, Rust, ...) that allocated most of its bytes,
    None where the library has no symbols. Bytes without a Python frame are in rows without a file, by native function.
    """
    frames = profile["frames"]
    sums: dict[tuple[Any, ...], list[int]] = {}
    below: dict[tuple[Any, ...], Counter[str]] = {}
    for stack, values, _labels in profile["samples"]:
        place = next((at for at, index in enumerate(stack) if _is_python(frames[index])), len(stack))
        native = next((frames[index][0] for index in stack[:place] if _answers(frames[index])), "")
        key = tuple(frames[stack[place]]) if place < len(stack) else (native or "(no line of Python)", "", 0)
        held = sums.setdefault(key, [0, 0])
        held[0] += values[0]
        held[1] += values[1]
        below.setdefault(key, Counter())[native] += values[0]
    rows = sorted(sums.items(), key=lambda item: -item[1][0])[:count]
    return [
        {
            "function": key[0], "file": key[1], "line": key[2], "bytes": held, "count": number,
            "native": below[key].most_common(1)[0][0] or None,
        }
        for key, (held, number) in rows
    ]  # fmt: skip


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

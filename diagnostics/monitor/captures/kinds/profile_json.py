"""Profile JSON as files, and its largest lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["load_json", "profile_of", "top_of", "write_json"]

_PROFILE_KEYS = ("schema", "kind", "sample_types", "frames", "samples", "time", "duration", "not_covered", "meta")


def top_of(profile: Mapping[str, Any], count: int = 10) -> list[dict[str, Any]]:
    """The `count` lines that hold the most, by the stack's leaf, from Profile JSON."""
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


def load_json(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, separators=(",", ":")), encoding="utf-8")


def profile_of(reply: Mapping[str, Any]) -> dict[str, Any]:
    """The Profile JSON in an agent's answer, without what the reading put beside it."""
    return {key: reply[key] for key in _PROFILE_KEYS}
